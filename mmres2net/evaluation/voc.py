"""PASCAL VOC's average precision of a detector, as a metric of MMEngine, over all classes and of each class.

Source: the VOC development kits' evaluation of detections, described in Everingham et al., "The PASCAL Visual Object
Classes (VOC) Challenge", IJCV 2010, sections 4.2 and 4.4, and in the kits' documentation. Box corners belong to the
box, so that a side is ``x2 - x1 + 1``. A detection belongs to the object that it overlaps most, and to no other one.

mmdet's ``VOCMetric`` follows the same matching, but logs the classes' metrics without returning them, rounds, computes
overlaps in float32, and compares recalls with tenths as floats, by which a recall of exactly 3/10 is not 0.3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmres2net.errors import UserError
from mmres2net.evaluation.labels import check_labels, class_names, class_table
from mmres2net.registry import METRICS

TRUE, FALSE, IGNORED = 1, 0, -1
MODES, KEPT = ('11points', 'area'), ('bboxes', 'scores', 'labels')


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
    """Evaluate one class over all images; a detection with an overlap of ``iou_thr`` or more finds an object."""
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


@METRICS.register_module()
class VOCMetric(BaseMetric):
    """Evaluate boxes by the VOC protocol: ``mAP`` (and the same as ``AP50``), then ``AP50_NAME`` of each class.

    A class without an object that counts has NaN, and the mean leaves it out. ``eval_mode`` is ``11points`` as in VOC
    2007, or ``area`` as in VOC 2010 and later. A detection with an overlap of ``iou_thr`` or more finds an object; the
    names follow it.
    """

    default_prefix = 'pascal_voc'

    def __init__(self, *, eval_mode: str = '11points', iou_thr: float = 0.5, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if eval_mode not in MODES:
            raise UserError(f'eval_mode={eval_mode!r} is not known: choose one of {", ".join(MODES)}')
        if not 0 < iou_thr <= 1:
            raise UserError(f'iou_thr={iou_thr}: choose more than 0 and at most 1')
        self.eval_mode, self.iou_thr = eval_mode, iou_thr
        self.kept: dict[str, Any] = {}  # of the last evaluation, to compare runs

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep predictions and annotations of a batch of dicts as mmdet's models return them.

        ``pred_instances`` have ``bboxes`` (n, 4), ``scores`` (n) and ``labels`` (n), ``gt_instances`` and
        ``ignored_instances`` (difficult) have ``bboxes`` and ``labels``, all in pixels of the original image, as they
        are where annotations are loaded after the image is resized.
        """
        classes = class_names(self.dataset_meta)
        for sample in data_samples:
            if 'gt_instances' not in sample or 'ignored_instances' not in sample:
                raise UserError('the samples hold no annotations: LoadAnnotations has to be in the test pipeline')
            parts = {'found': 'pred_instances', 'counted': 'gt_instances', 'difficult': 'ignored_instances'}
            result = {
                name: {key: sample[part][key].cpu().numpy() for key in KEPT if key in sample[part]}
                for name, part in parts.items()
            }
            check_labels(result['found']['labels'], len(classes))
            self.results.append(result)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Evaluate what :meth:`process` kept and log a table of the classes."""
        classes = class_names(self.dataset_meta)
        if not results:
            raise UserError('no image was evaluated: is the split empty, or the data loader?')
        images = [[_of_class(one, k) for one in results] for k in range(len(classes))]
        by_class = {
            name: evaluate_class(mine, iou_thr=self.iou_thr, mode=self.eval_mode)
            for name, mine in zip(classes, images, strict=True)
        }
        self.kept = self._kept(images, list(by_class.values()))
        counted = [result.ap for result in by_class.values() if not math.isnan(result.ap)]
        mean = float(np.mean(counted)) if counted else float('nan')
        self._log(by_class, mean)
        name = f'AP{100 * self.iou_thr:g}'
        return {'mAP': mean, name: mean, **{f'{name}_{key}': result.ap for key, result in by_class.items()}}

    def _kept(self, images: Sequence[Sequence[ImageBoxes]], found: Sequence[ClassResult]) -> dict[str, Any]:
        """Return verdict, score, label and image of each detection, and how many objects (I, K) count."""
        places = [np.repeat(np.arange(len(mine)), [len(one.scores) for one in mine]) for mine in images]
        return {
            'voc.mode': self.eval_mode,
            'voc.iou_thr': self.iou_thr,
            'voc.image': np.concatenate(places),
            'voc.label': np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
            'voc.score': np.concatenate([one.scores for one in found]),
            'voc.verdict': np.concatenate([one.verdicts for one in found]),
            'voc.objects': np.array([[(~one.difficult).sum() for one in mine] for mine in images]).T,
        }

    def _log(self, by_class: Mapping[str, ClassResult], mean: float) -> None:
        rows = [[name, one.objects, len(one.scores), one.recall, one.ap] for name, one in by_class.items()]
        table = class_table(['class', 'objects', 'detections', 'recall', 'AP'], [*rows, ['mean', '', '', '', mean]])
        print_log(f'VOC {self.eval_mode} AP at IoU {self.iou_thr:g}:\n{table}', 'current')


def _of_class(result: Mapping[str, Any], label: int) -> ImageBoxes:
    found, counted, difficult = (result[part] for part in ('found', 'counted', 'difficult'))
    mine = found['labels'] == label
    parts = [part['bboxes'][part['labels'] == label].reshape(-1, 4) for part in (counted, difficult)]
    marks = np.repeat([False, True], [len(part) for part in parts])
    return ImageBoxes(found['bboxes'][mine], found['scores'][mine], np.concatenate(parts), marks)
