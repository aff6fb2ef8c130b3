"""From an image to its predictions: resize, run, and back into the pixels of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.predict.facts import Facts
from mmres2net.predict.images import fitted, framed, paste_masks, read_image, resize
from mmres2net.predict.runtimes import Session, open_file

Array = npt.NDArray[Any]


def load(path: str | Path, *, threads: int | None = None) -> Model:
    """Return the model in an exported file.

    Args:
        path: The file; its suffix tells the format.
        threads: Threads of the runtime; None: as it chooses.

    Raises:
        UserError: No such file, none of ours or a damaged one, or its runtime is missing.
    """
    return Model(open_file(path, threads=threads))


class Model:
    """An exported model.

    Args:
        session: The open file.

    Attributes:
        facts: What the file says of itself: task, classes, sizes, thresholds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.facts: Facts = session.facts

    def predict(self, source: str | Path | Image.Image | Array, *, score: float | None = None) -> dict[str, Array]:
        """Return what is in an image.

        Args:
            source: A file, an image of Pillow's, or an array (H, W, 3) uint8 in RGB.
            score: Detections less sure than this are left out; None: those that the file leaves out.

        Returns:
            Of a detector ``boxes`` (n, 4) float: left, top, right, bottom in pixels of the image, ``scores`` (n,)
            float, ``labels`` (n,) int, and ``masks`` (n, H, W) bool if it has them, the surest first. Of a segmentor
            ``classes`` (H, W) int. Of a backbone one map a stage, (C_i, h_i, w_i) float.

        Raises:
            UserError: No image, or a threshold below the one that the file was made with.
        """
        least = self.facts.score_threshold
        if score is not None and self.facts.task == 'detection' and score < least:
            raise UserError(f'score {score}: the file was exported with a threshold of {least}; choose no less')
        image = read_image(source)
        size = (image.shape[0], image.shape[1])
        fed, used = self._fed(image)
        batch = np.ascontiguousarray(fed.transpose(2, 0, 1)[None])
        results = dict(zip(self.facts.outputs, self._session.run(batch), strict=True))
        if self.facts.task == 'detection':
            return self._detections(results, size, used, least if score is None else score)
        if self.facts.task == 'segmentation':
            return {'classes': self._classes(results, size, used)}
        return {name: result[0] for name, result in results.items()}

    def _fed(self, image: Array) -> tuple[Array, tuple[int, int]]:
        """Return the pixels for the network, and how much of them, height and width, is the image."""
        scale, keep, fixed = self.facts.scale, self.facts.keep_ratio, self.facts.size
        height, width = image.shape[:2]
        used = fitted((height, width), scale, keep) if scale else (height, width)
        if fixed and (used[0] > fixed[0] or used[1] > fixed[1]):
            factor = min(fixed[0] / used[0], fixed[1] / used[1])
            used = max(int(used[0] * factor), 1), max(int(used[1] * factor), 1)
        fed = resize(image, used)
        return (framed(fed, fixed, self.facts.fill) if fixed else fed), used

    def _detections(
        self, results: dict[str, Array], size: tuple[int, int], used: tuple[int, int], score: float
    ) -> dict[str, Array]:
        sure = results['scores'] >= score
        factors = np.array([size[1] / used[1], size[0] / used[0]] * 2, np.float32)
        border = np.array([size[1], size[0]] * 2, np.float32)
        boxes = np.minimum(results['boxes'][sure] * factors, border)
        out = {'boxes': boxes, 'scores': results['scores'][sure], 'labels': results['labels'][sure]}
        if 'masks' in results:
            out['masks'] = paste_masks(results['masks'][sure], boxes, size, self.facts.mask_threshold)
        return out

    def _classes(self, results: dict[str, Array], size: tuple[int, int], used: tuple[int, int]) -> Array:
        if used == size:
            return results['classes'][0, : size[0], : size[1]]
        logits = results['logits'][0, :, : used[0], : used[1]].transpose(1, 2, 0)
        return resize(logits, size, align_corners=self.facts.align_corners).argmax(2)
