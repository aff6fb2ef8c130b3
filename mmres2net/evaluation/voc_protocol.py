"""PASCAL VOC's average precision on plain arrays.

Source: the VOC development kits' evaluation of detections, described in Everingham et al., "The PASCAL Visual Object
Classes (VOC) Challenge", IJCV 2010, sections 4.2 and 4.4, and in the kits' documentation. Box corners belong to the
box, so that a side is ``x2 - x1 + 1``. A detection belongs to the object that it overlaps most, and to no other one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TRUE, FALSE, IGNORED = 1, 0, -1
MODES = ('11points', 'area')


class ImageBoxes(NamedTuple):
    """Detections and objects of one class in one image; boxes are corners x1, y1, x2, y2."""

    boxes: np.ndarray  # (n, 4)
    scores: np.ndarray  # (n)
    objects: np.ndarray  # (m, 4)
    difficult: np.ndarray  # (m) whether an object is marked difficult: finding it is neither right nor wrong


class ClassResult(NamedTuple):
    """What was found of one class: ``ap`` and ``recall`` are NaN where it has no object that counts."""

    ap: float
    recall: float
    objects: int
    verdicts: np.ndarray  # (n) of the detections, image by image
    scores: np.ndarray  # (n)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (n, 4) with ``others`` (m, 4) as (n, m), in float64."""
    boxes, others = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low + 1).clip(min=0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2] + 1).prod(-1) for one in (boxes, others)]
    return both / (sum(areas) - both)


def judge(image: ImageBoxes, iou_thr: float) -> np.ndarray:
    """Return for each detection (n) whether it is TRUE, FALSE or IGNORED."""
    verdict = np.full(len(image.boxes), FALSE, np.int8)
    if not len(image.boxes) or not len(image.objects):
        return verdict
    shared = overlaps(image.boxes, image.objects)
    nearest, hits = shared.argmax(1), shared.max(1) >= iou_thr
    verdict[hits & image.difficult[nearest]] = IGNORED
    for target in np.unique(nearest[hits & ~image.difficult[nearest]]):
        rivals = np.flatnonzero(hits & (nearest == target))
        verdict[rivals[image.scores[rivals].argmax()]] = TRUE
    return verdict


def evaluate_class(images: Sequence[ImageBoxes], *, iou_thr: float = 0.5, mode: str = '11points') -> ClassResult:
    """Evaluate one class over all images; detections of equal score keep the order of the images.

    A detection with an overlap of ``iou_thr`` or more finds an object.
    """
    verdicts = np.concatenate([np.empty(0, np.int8), *(judge(image, iou_thr) for image in images)])
    scores = np.concatenate([np.empty(0), *(image.scores for image in images)])
    objects = sum(int((~image.difficult).sum()) for image in images)
    ranked = verdicts[np.argsort(-scores, kind='stable')]
    ap = average_precision(ranked[ranked != IGNORED] == TRUE, objects, mode)
    recall = float((verdicts == TRUE).sum()) / objects if objects else float('nan')
    return ClassResult(ap, recall, objects, verdicts, scores)


def average_precision(right: np.ndarray, objects: int, mode: str) -> float:
    """Return the AP of detections in falling order of score, ``right`` (n) or not; NaN without an object.

    ``11points`` (VOC 2007): mean of the best precision at a recall of 0, 0.1, ..., 1 or more. ``area`` (VOC 2010 and
    later): area under the precision, made to fall with recall.
    """
    if not objects:
        return float('nan')
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    if mode == '11points':
        # In integers: as fractions, a recall of 3 / 10 falls short of 3 * 0.1.
        return float(np.mean([precision[10 * found >= tenth * objects].max(initial=0.0) for tenth in range(11)]))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[right].sum() / objects)
