"""``mmres2net.Predictor``: a checkpoint or an exported file as a function of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmres2net.predict.images import read_image
from mmres2net.predict.model import Array, Prediction, Readable, load
from mmres2net.predict.outputs import draw_prediction


class Predictor:
    """A trained model as a function of images.

    >>> predictor = Predictor('work_dirs/my_run')  # doctest: +SKIP
    >>> prediction = predictor('photo.jpg', score=0.5)  # doctest: +SKIP
    >>> drawn = predictor.draw('photo.jpg', prediction)  # doctest: +SKIP

    Args:
        model, config, options, device, precision, threads, allow_unsafe_checkpoint: See
            :func:`mmres2net.predict.load`.

    Attributes:
        metadata: What is known about the model: ``task``, ``classes``, ``palette``, ``source`` and more.

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
        self.model = load(
            model, config=config, options=options, device=device, precision=precision, threads=threads,
            allow_unsafe_checkpoint=allow_unsafe_checkpoint,
        )  # fmt: skip
        self.metadata = self.model.metadata

    def __call__(self, images: Any, *, score: float | None = None) -> Any:
        """Return the prediction for an image, or those for a list of images, which run as a batch.

        Args:
            images: A file, an image of Pillow's, an array (H, W, 3) uint8 in RGB, or a list or tuple of these.
            score: Detections below this score are dropped; None: the threshold of the model.

        Returns:
            A dict as of :meth:`mmres2net.predict.Model.predict`, or a list of them.

        Raises:
            UserError: An image cannot be read or is not an image.
        """
        if isinstance(images, list | tuple):
            return self.model.predict_batch(images, score=score)
        return self.model.predict(images, score=score)

    def draw(self, image: Readable, prediction: Prediction) -> Array:
        """Return ``image`` with a prediction drawn into it, (H, W, 3) uint8 RGB; a legend may add lines below it."""
        return draw_prediction(read_image(image, apply_exif=self.metadata.apply_exif), prediction, self.metadata)
