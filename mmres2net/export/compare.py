"""How far two results are apart: maps, classes of pixels, detections.

Results of two runtimes differ by rounding, and rounding decides where two candidates are equally good: which class a
pixel has, which of two boxes suppresses the other, which one is the last of a full list. Such decisions are recognized
by their margin and do not count. Everything else does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Array = npt.NDArray[Any]
Detections = Mapping[str, Any]
MASK_FACTOR = 10  # pixels at the border of a small mask count for more than the last digits of a feature
FAR = 1e9  # pixels between detections that are not equal


@dataclass(frozen=True)
class Comparison:
    """One comparison."""

    part: str  # what was compared
    difference: float  # the largest one
    tolerance: float  # the largest difference allowed
    remark: str = ''  # the unit of the difference, and what else there is to say

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough; NaN is not."""
        return bool(self.difference <= self.tolerance)


def compare_maps(name: str, expected: Array, got: Array, tolerance: float) -> Comparison:
    """Compare two maps by their largest difference, relative to the largest value."""
    if expected.shape != got.shape:
        return Comparison(name, np.inf, tolerance, f'shape {got.shape} instead of {expected.shape}')
    scale = float(np.abs(expected).max()) or 1.0
    return Comparison(name, float(np.abs(expected - got).max()) / scale, tolerance, 'of the largest value')


def compare_classes(scores: Array, expected: Array, got: Array, tolerance: float) -> Comparison:
    """Compare the classes of pixels (...) where rounding does not decide.

    It does where two of the expected ``scores`` (K, ...) are closer than ``tolerance``, relative to the largest one.
    """
    if expected.shape != got.shape:
        return Comparison('classes', np.inf, 0.0, f'shape {got.shape} instead of {expected.shape}')
    best = np.partition(scores, -2, axis=0)[-2:] if len(scores) > 1 else np.stack([scores[0] * 0 - np.inf, scores[0]])
    decided = best[1] - best[0] > 2 * tolerance * np.abs(scores).max()
    wrong = float((expected != got)[decided].mean()) if decided.any() else 0.0
    return Comparison('classes', wrong, 0.0, f'of {int(decided.sum())} pixels that rounding does not decide')


def compare_detections(
    expected: Detections, got: Detections, alternatives: Iterable[Detections], size: tuple[int, int], tolerance: float,
    score_threshold: float, max_detections: int,
) -> Iterator[Comparison]:  # fmt: skip
    """Compare detections one by one.

    Two detections are equal if label, box, score and mask are within the tolerance. A detection without an equal is a
    fault unless rounding decides about it: its score is at the threshold or at the end of a full list, or the model
    itself finds it (or does not find it) when its features are changed by as little as rounding.

    Args:
        expected, got: ``boxes`` (n, 4), ``scores``, ``labels`` and, optionally, ``masks`` (n, H, W) bool.
        alternatives: Detections of the model with slightly changed features; as many are taken as needed.
        size: Height and width of the image.
        tolerance: Of scores, and of boxes relative to the image's longer side; ten times it of 1 - mask IoU.
        score_threshold, max_detections: Which detections are given at all.
    """
    pairs = _equal_pairs(expected, got, size, tolerance)
    lost = set(range(len(expected['scores']))) - {i for i, _ in pairs}
    extra = set(range(len(got['scores']))) - {j for _, j in pairs}
    count = len(lost) + len(extra)

    def cut_off(score: float, other: Detections) -> bool:
        full = len(other['scores']) >= max_detections and score <= float(other['scores'].min()) + tolerance
        return full or score <= score_threshold + tolerance

    lost = {i for i in lost if not cut_off(float(expected['scores'][i]), got)}
    extra = {i for i in extra if not cut_off(float(got['scores'][i]), expected)}
    for other in alternatives if lost or extra else ():
        lost &= {i for i, _ in _equal_pairs(expected, other, size, tolerance)}
        extra -= {i for i, _ in _equal_pairs(got, other, size, tolerance)}
        if not lost and not extra:
            break
    faults = len(lost) + len(extra)
    remark = f'without an equal, of {len(expected["scores"])}, and {count - faults} by rounding'
    yield Comparison('detections', float(faults), 0.0, remark)
    if pairs:
        ours, theirs = (list(side) for side in zip(*pairs, strict=True))
        boxes = np.abs(expected['boxes'][ours] - got['boxes'][theirs]).max() / max(size)
        yield Comparison('boxes', float(boxes), tolerance, f"of the image's longer side, {len(pairs)} equal ones")
        yield Comparison('scores', float(np.abs(expected['scores'][ours] - got['scores'][theirs]).max()), tolerance)
    if pairs and 'masks' in expected:
        worst = min(_iou(expected['masks'][i], got['masks'][j]) for i, j in pairs)
        yield Comparison('1 - mask IoU', 1 - worst, MASK_FACTOR * tolerance, 'the worst')


def _equal_pairs(one: Detections, other: Detections, size: tuple[int, int], tolerance: float) -> list[tuple[int, int]]:
    """Return pairs of equal detections, each detection once, as many as there are."""
    if not len(one['scores']) or not len(other['scores']):
        return []
    distances = np.abs(one['boxes'][:, None] - other['boxes'][None]).max(2)
    equal = (distances <= tolerance * max(size)) & (one['labels'][:, None] == other['labels'])
    equal &= np.abs(one['scores'][:, None] - other['scores']) <= tolerance
    for i, j in np.argwhere(equal) if 'masks' in one else ():
        equal[i, j] = 1 - _iou(one['masks'][i], other['masks'][j]) <= MASK_FACTOR * tolerance
    pairs = zip(*linear_sum_assignment(np.where(equal, distances, FAR)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if equal[i, j]]


def _iou(one: Array, other: Array) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
