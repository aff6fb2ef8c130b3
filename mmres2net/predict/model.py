"""From an image to its predictions: one interface for exported files and for checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.predict.images import Size, apply_transforms, pad_to, read_image, resize
from mmres2net.predict.masks import paste_mask
from mmres2net.predict.metadata import ExportMetadata
from mmres2net.predict.runtimes import Session, open_file

Array = npt.NDArray[Any]
Prediction = dict[str, Any]
Readable = str | Path | Image.Image | Array


def load(path: str | Path, *, threads: int | None = None) -> Model:
    """Return the model in an exported file, whose suffix tells the format; ``threads`` None: the runtime's default.

    TorchScript (.pt) and torch.export (.pt2) files are programs: load them only if you trust their source.

    Raises:
        UserError: No such file, not an export of mmres2net, a damaged one, or its runtime is missing.
    """
    return ExportedModel(open_file(path, threads=threads))


class Model(ABC):
    """A model that predicts, from whatever file."""

    metadata: ExportMetadata  # what is known about it: task, class names, colors, thresholds, source

    def predict(self, source: Readable, *, score: float | None = None) -> Prediction:
        """Return the predictions for an image.

        Args:
            source: A file, an image of Pillow's, or an array (H, W, 3) uint8 in RGB.
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
        return self.predict_batch([source], score=score)[0]

    def predict_batch(self, sources: Sequence[Readable], *, score: float | None = None) -> list[Prediction]:
        """Return the predictions for each image as :meth:`predict` does, with fewer runs of the network."""
        least = self.metadata.score_threshold
        if score is not None and self.metadata.task == 'detection' and not least <= score <= 1:
            raise UserError(f'score {score}: choose {least} (the threshold of the model) to 1')
        images = [read_image(source, apply_exif=self.metadata.apply_exif) for source in sources]
        return self._predict(images, least if score is None else score)

    @abstractmethod
    def _predict(self, images: Sequence[Array], score: float) -> list[Prediction]: ...


class ExportedModel(Model):
    """A model in an exported file; it takes one image at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.metadata = session.metadata

    def _predict(self, images: Sequence[Array], score: float) -> list[Prediction]:
        return [self._predict_one(image, score) for image in images]

    def _predict_one(self, image: Array, score: float) -> Prediction:
        pixels, used = self.prepare(image)
        outputs = self._session.run(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        results = dict(zip(self.metadata.outputs, outputs, strict=True))
        check_finite(results)
        size = (image.shape[0], image.shape[1])
        if self.metadata.task == 'detection':
            return self._detections(results, size, used, score)
        if self.metadata.task == 'segmentation':
            return {'classes': self._classes(results, size, used)}
        return {name: result[0] for name, result in results.items()}

    def prepare(self, image: Array) -> tuple[Array, Size]:
        """Return the pixels (h, w, 3) that the network gets for an image, and what part of them is not padding.

        Raises:
            UserError: The image is too narrow.
        """
        pixels, fixed = apply_transforms(image, self.metadata.transforms), self.metadata.size
        used = (pixels.shape[0], pixels.shape[1])
        if fixed is None:
            return pixels, used
        if used[0] > fixed[0] or used[1] > fixed[1]:
            factor = min(fixed[0] / used[0], fixed[1] / used[1])
            used = max(int(used[0] * factor), 1), max(int(used[1] * factor), 1)
            pixels = resize(pixels, used)
        return pad_to(pixels, fixed, self.metadata.fill), used

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
            return results['classes'][0, : size[0], : size[1]]
        # A class at a time: all logits at the size of a photograph take gigabytes.
        best, classes = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
        for label, logits in enumerate(results['logits'][0, :, : used[0], : used[1]]):
            resized = resize(logits[..., None], size, align_corners=self.metadata.align_corners)[..., 0]
            better = resized > best
            best[better], classes[better] = resized[better], label
        return classes


def check_finite(results: Prediction) -> None:
    """Check the outputs of a network; a UserError says that some are NaN or infinite."""
    if not all(np.isfinite(value).all() for value in results.values()):
        raise UserError('the model gives values that are not finite for this image: its weights are damaged')
