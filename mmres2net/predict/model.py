"""From an image to its predictions: one interface for exported files and for checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.predict.images import Array, Size, apply_transforms, paste_mask, read_image, resize_logits
from mmres2net.predict.results import Prediction, draw_prediction
from mmres2net.predict.runtimes import OPENERS, Session, open_file


class Predictor:
    """A trained model as a function of images.

    Args:
        model: An exported file, by its suffix; a checkpoint; or a work dir, whose best checkpoint is taken, else its
            newest one. TorchScript (.pt) and torch.export (.pt2) files are programs: name those alone that you trust.
        config: The config of a checkpoint, as ``mmres2net train`` takes it; None: the one that the checkpoint holds.
        options: Settings that override the config.
        device: Where a checkpoint runs, such as ``cuda:1``; None: a GPU if there is one.
        precision: ``fp16`` (GPU) or ``bf16`` for backbone and neck of a checkpoint; None: float32.
        threads: Threads on the CPU; None: the runtime's default.
        allow_unsafe_checkpoint: Whether the checkpoint may run code.

    Attributes:
        metadata: What is known about the model: task, class names, colors, thresholds, source.

    Raises:
        UserError: There is no such file, it is damaged, it does not fit its config, or a package is missing.
    """

    def __init__(
        self, model: str | Path, *, config: str | None = None, options: dict[str, Any] | None = None,
        device: str | None = None, precision: str | None = None, threads: int | None = None,
        allow_unsafe_checkpoint: bool = False,
    ) -> None:  # fmt: skip
        name, unsafe = str(model), allow_unsafe_checkpoint
        if config is None and Path(name).suffix in OPENERS:
            given = {'--cfg-options': options, '--amp': precision, '--allow-unsafe-checkpoint': unsafe}
            given['--device'] = device not in (None, 'cpu')
            if named := [flag for flag, value in given.items() if value]:
                raise UserError(f'{" ".join(named)}: {name} is an exported file, which runs on the CPU as it is')
            self.model: Any = ExportedModel(open_file(name, threads=threads))
        else:
            try:
                from mmres2net.predict.checkpoint import load_checkpoint
            except ImportError as error:
                raise UserError(f'{name} needs PyTorch and OpenMMLab ({error}); exported files do not') from error
            self.model = load_checkpoint(name, config, options, device, precision, threads, allow_pickle=unsafe)
        self.metadata = self.model.metadata

    def predict(self, images: Any, *, score: float | None = None) -> Any:
        """Return the predictions for an image as a dict, or a list of them for a list of images.

        Args:
            images: A file, an image of Pillow's, an array (H, W, 3) uint8 in RGB, or a list or tuple, run as a batch.
            score: Detections below this score are dropped; None: the threshold of the model.

        Returns:
            Of a detector ``boxes`` (n, 4) float: left, top, right, bottom in pixels of the image, ``scores`` (n,)
            float, ``labels`` (n,) int, highest score first, and, if it has them, ``masks``: n run-length encoded masks
            in COCO's form, see :func:`mmres2net.predict.decode_mask`. Of a segmentor ``classes`` (H, W) int; one with a
            single output, such as DSS, also has ``saliency`` (H, W) float, its probability. Of a classifier ``scores``
            (K,) float, the probability of each class. Of a backbone a map per stage, (C, h, w).

        Raises:
            UserError: Not an image, a score below the threshold that the file was exported with, or outputs that are
                not finite.
        """
        many, least = isinstance(images, list | tuple), self.metadata.score_threshold
        if score is not None and self.metadata.task == 'detection' and not least <= score <= 1:
            raise UserError(f'score {score}: choose {least} (the threshold of the model) to 1')
        pixels = [read_image(one, apply_exif=self.metadata.apply_exif) for one in (images if many else [images])]
        found = self.model.predict(pixels, least if score is None else score)
        return found if many else found[0]

    __call__ = predict

    def draw(self, image: str | Path | Image.Image | Array, prediction: Prediction) -> Array:
        """Return ``image`` with a prediction drawn into it, (H, W, 3) uint8 RGB; a legend may add lines below it."""
        return draw_prediction(read_image(image, apply_exif=self.metadata.apply_exif), prediction, self.metadata)


class ExportedModel:
    """A model in an exported file; it takes one image at a time."""

    def __init__(self, session: Session) -> None:
        self.metadata, self._run = session

    def predict(self, images: Sequence[Array], score: float) -> list[Prediction]:
        """Return what is found in each image."""
        pairs = [((one.shape[0], one.shape[1]), apply_transforms(one, self.metadata.transforms)) for one in images]
        return [self.predict_pixels(pixels.transpose(2, 0, 1)[None], size, score) for size, pixels in pairs]

    def predict_pixels(self, pixels: Array, size: Size, score: float) -> Prediction:
        """Return what is found in ``pixels`` (1, 3, H, W), made from an image of ``size``, in pixels of that image."""
        outputs = self._run(np.ascontiguousarray(pixels))
        results = dict(zip(self.metadata.outputs, outputs, strict=True))
        check_finite(results)
        used = (pixels.shape[2], pixels.shape[3])
        if self.metadata.task == 'detection':
            return self._detections(results, size, used, score)
        if self.metadata.task == 'segmentation':
            return {'classes': self._classes(results, size, used)}
        return {name: result[0] for name, result in results.items()}

    def _detections(self, results: dict[str, Array], size: Size, used: Size, score: float) -> Prediction:
        kept = results['scores'] >= score
        factors = np.array([size[1] / used[1], size[0] / used[0]] * 2, np.float32)
        boxes = np.clip(results['boxes'][kept] * factors, 0, np.array([size[1], size[0]] * 2, np.float32))
        out: Prediction = {'boxes': boxes, 'scores': results['scores'][kept], 'labels': results['labels'][kept]}
        if 'masks' in results:
            pairs = zip(results['masks'][kept], boxes, strict=True)
            out['masks'] = [paste_mask(*pair, size, self.metadata.mask_threshold) for pair in pairs]
        return out

    def _classes(self, results: dict[str, Array], size: Size, used: Size) -> Array:
        if used == size:
            return results['classes'][0]
        # A class at a time: all logits at the size of a photograph take gigabytes.
        best, classes = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
        for label, logits in enumerate(results['logits'][0]):
            resized = resize_logits(logits, size, align_corners=self.metadata.align_corners)
            better = resized > best
            best[better], classes[better] = resized[better], label
        return classes


def check_finite(results: Prediction) -> None:
    """Check the outputs of a network; a UserError says that some are NaN or infinite."""
    if not all(np.isfinite(value).all() for value in results.values()):
        raise UserError('the model gives values that are not finite for this image: its weights are damaged')
