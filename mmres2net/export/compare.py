"""How far two results are apart: features, logits and classes, detections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmres2net.predict.images import paste_masks

Array = npt.NDArray[Any]
MASK_SLACK = 10  # pixels on the border of a small mask count for more than a feature's last digits
NEAR = 0.01  # of the image's longer side: two boxes further apart are not the same detection


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        part: What was compared.
        difference: The largest difference seen.
        tolerance: The largest allowed.
        words: What else there is to say.
    """

    part: str
    difference: float
    tolerance: float
    words: str = ''

    @property
    def good(self) -> bool:
        """Whether it is close enough; what is no number is not."""
        return bool(self.difference <= self.tolerance)


def compare_maps(name: str, expected: Array, got: Array, tolerance: float) -> Row:
    """Compare two maps by their largest difference, against the largest value."""
    if expected.shape != got.shape:
        return Row(name, np.inf, tolerance, f'shape {got.shape} instead of {expected.shape}')
    scale = float(np.abs(expected).max()) or 1.0
    return Row(name, float(np.abs(expected - got).max()) / scale, tolerance, 'of the largest value')


def compare_classes(expected: Array, got: Array, tolerance: float) -> Iterator[Row]:
    """Compare two maps of classes, (H, W) each: pixels that differ, and mIoU of one against the other."""
    if expected.shape != got.shape:
        yield Row('classes', np.inf, tolerance, f'shape {got.shape} instead of {expected.shape}')
        return
    yield Row('classes', float((expected != got).mean()), tolerance, 'of all pixels differ')
    yield Row('1 - mIoU', 1 - mean_iou(expected, got), MASK_SLACK * tolerance, 'against the eager classes')


def mean_iou(expected: Array, got: Array) -> float:
    """Return the mean over the classes in ``expected`` of intersection over union."""
    ious = []
    for label in np.unique(expected):
        one, other = expected == label, got == label
        ious.append((one & other).sum() / (one | other).sum())
    return float(np.mean(ious))


def compare_detections(
    expected: dict[str, Array],
    got: dict[str, Array],
    size: tuple[int, int],
    tolerance: float,
    *,
    least_score: float,
    most: int,
    mask_threshold: float = 0.5,
) -> Iterator[Row]:
    """Compare detections one to one: by label and place.

    A detection without a partner is a fault, unless its score is within ``tolerance`` of the score at which detections
    are cut off, or of the last one where there are as many as there may be: there it is rounding that decides.

    Args:
        expected: The eager model's; its masks are those of pixels.
        got: The exported file's; its masks are those over boxes.
        size: Height and width of the image.
        tolerance: Of scores, and of boxes against the image's longer side.
        least_score: Below it no detections are given.
        most: More detections than this are not given.
        mask_threshold: Of masks.
    """
    pairs = _pairs(expected, got, NEAR * max(size))
    lost = {index for index in range(len(expected['scores'])) if index not in dict(pairs)}
    partners = {partner for _, partner in pairs}
    lonely = [*expected['scores'][sorted(lost)]]
    lonely += [score for index, score in enumerate(got['scores']) if index not in partners]
    ends = [least_score]
    if len(expected['scores']) >= most:
        ends += [min(expected['scores']), min(got['scores'], default=least_score)]
    faults = [score for score in lonely if min(abs(score - end) for end in ends) > tolerance]
    words = f'without a partner, of {len(expected["scores"])}'
    yield Row('detections', float(len(faults)), 0.0, words)
    if not pairs:
        return
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    boxes = np.abs(expected['boxes'][ours] - got['boxes'][theirs]).max() / max(size)
    yield Row('boxes', float(boxes), tolerance, "of the image's longer side")
    yield Row('scores', float(np.abs(expected['scores'][ours] - got['scores'][theirs]).max()), tolerance)
    if 'masks' in expected:
        pasted = paste_masks(got['masks'][theirs], got['boxes'][theirs], size, mask_threshold)
        ious = [_iou(one, other) for one, other in zip(expected['masks'][ours], pasted, strict=True)]
        yield Row('1 - mask IoU', 1 - min(ious), MASK_SLACK * tolerance, 'the worst')


def _pairs(expected: dict[str, Array], got: dict[str, Array], reach: float) -> list[tuple[int, int]]:
    """Return pairs of the same label whose boxes lie within ``reach`` pixels, each once, the surest first."""
    free = list(range(len(got['scores'])))
    pairs = []
    for index, (box, label) in enumerate(zip(expected['boxes'], expected['labels'], strict=True)):
        near = [other for other in free if got['labels'][other] == label]
        distances = [float(np.abs(got['boxes'][other] - box).max()) for other in near]
        if distances and min(distances) <= reach:
            chosen = near[int(np.argmin(distances))]
            free.remove(chosen)
            pairs.append((index, chosen))
    return pairs


def _iou(one: Array, other: Array) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
