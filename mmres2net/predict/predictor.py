"""``mmres2net.Predictor``: a checkpoint or an exported file as a function of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmres2net.errors import UserError
from mmres2net.predict.images import read_image
from mmres2net.predict.model import Array, Model, Prediction, Readable, load
from mmres2net.predict.outputs import draw_prediction
from mmres2net.predict.runtimes import OPENERS


class Predictor:
    """A trained model as a function of images.

    Args:
        model: An exported file, by its suffix; a checkpoint; or a work dir, whose best checkpoint is taken, else its
            newest one. TorchScript (.pt) and torch.export (.pt2) files are programs.
        config: The config of a checkpoint, as ``mmres2net train`` takes it; None: the one that the checkpoint holds.
        options: Settings that override the config.
        device: Where a checkpoint runs, such as ``cuda:1``; None: a GPU if there is one.
        precision: ``fp16`` (GPU) or ``bf16`` for backbone and neck of a checkpoint; None: float32.
        threads: Threads on the CPU; None: the runtime's default.
        allow_unsafe_checkpoint: Whether the checkpoint may run code.

    Raises:
        UserError: There is no such file, it is damaged, it does not fit its config, or a package is missing.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        config: str | None = None,
        options: dict[str, Any] | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        allow_unsafe_checkpoint: bool = False,
    ) -> None:
        name, unsafe = str(model), allow_unsafe_checkpoint
        if config is None and Path(name).suffix in OPENERS:
            given = {'--cfg-options': options, '--amp': precision, '--allow-unsafe-checkpoint': unsafe}
            given['--device'] = device not in (None, 'cpu')
            if named := [flag for flag, value in given.items() if value]:
                raise UserError(f'{" ".join(named)}: {name} is an exported file, which runs on the CPU as it is')
            self.model: Model = load(name, threads=threads)
        else:
            try:
                from mmres2net.predict.checkpoint import load_checkpoint
            except ImportError as error:
                raise UserError(f'{name} needs PyTorch and OpenMMLab ({error}); exported files do not') from error
            self.model = load_checkpoint(name, config, options, device, precision, threads, allow_pickle=unsafe)
        self.metadata = self.model.metadata  # task, classes, palette, source and more

    def __call__(self, images: Any, *, score: float | None = None) -> Any:
        """Return a dict as of :meth:`mmres2net.predict.Model.predict`, or a list of them for a list of images.

        Args:
            images: A file, an image of Pillow's, an array (H, W, 3) uint8 in RGB, or a list or tuple, run as a batch.
            score: Detections below this score are dropped; None: the threshold of the model.

        Raises:
            UserError: An image cannot be read or is not an image.
        """
        many = isinstance(images, list | tuple)
        found = self.model.predict_batch(images if many else [images], score=score)
        return found if many else found[0]

    def draw(self, image: Readable, prediction: Prediction) -> Array:
        """Return ``image`` with a prediction drawn into it, (H, W, 3) uint8 RGB; a legend may add lines below it."""
        return draw_prediction(read_image(image, apply_exif=self.metadata.apply_exif), prediction, self.metadata)
