"""PASCAL VOC's average precision of a detector, as a metric of MMEngine, over all classes and of each class.

mmdet's ``VOCMetric`` follows the same matching, but logs the classes' metrics without returning them, rounds, computes
overlaps in float32, and compares recalls with tenths as floats, by which a recall of exactly 3/10 is not 0.3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmres2net.errors import UserError
from mmres2net.evaluation.labels import check_labels, class_names, class_table
from mmres2net.evaluation.voc_protocol import MODES, ClassResult, ImageBoxes, evaluate_class
from mmres2net.registry import METRICS


@METRICS.register_module()
class VOCMetric(BaseMetric):
    """Evaluate boxes by the VOC protocol: ``mAP`` (and the same as ``AP50``), then ``AP50_NAME`` of each class.

    A class without an object that counts has NaN, and the mean leaves it out.

    Args:
        eval_mode: ``11points`` as in VOC 2007, or ``area`` as in VOC 2010 and later.
        iou_thr: A detection with this overlap or more finds the object; the names follow it.
        collect_device: Where results of several processes meet: ``cpu`` or ``gpu``.
        prefix: Goes before the names of the metrics.

    Raises:
        UserError: An unknown mode, or a threshold out of range.
    """

    default_prefix = 'pascal_voc'

    def __init__(
        self,
        *,
        eval_mode: str = '11points',
        iou_thr: float = 0.5,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if eval_mode not in MODES:
            raise UserError(f'eval_mode={eval_mode!r} is not known: choose one of {", ".join(MODES)}')
        if not 0 < iou_thr <= 1:
            raise UserError(f'iou_thr={iou_thr}: choose more than 0 and at most 1')
        self.eval_mode, self.iou_thr = eval_mode, iou_thr
        self.kept: dict[str, Any] = {}  # of the last evaluation, to compare runs

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep predictions and annotations of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dicts as mmdet's models return them: ``pred_instances`` with ``bboxes`` (n, 4), ``scores`` (n)
                and ``labels`` (n), ``gt_instances`` and ``ignored_instances`` (difficult) with ``bboxes`` and
                ``labels``, all in pixels of the original image, as they are where annotations are loaded after the
                image is resized.

        Raises:
            UserError: The samples hold no annotations, or labels that no class has.
        """
        classes = class_names(self.dataset_meta)
        for sample in data_samples:
            if 'gt_instances' not in sample or 'ignored_instances' not in sample:
                raise UserError('the samples hold no annotations: LoadAnnotations has to be in the test pipeline')
            parts = {'found': 'pred_instances', 'counted': 'gt_instances', 'difficult': 'ignored_instances'}
            result = {name: _arrays(sample[part]) for name, part in parts.items()}
            check_labels(result['found']['labels'], len(classes))
            self.results.append(result)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Evaluate what :meth:`process` kept and log a table of the classes.

        Raises:
            UserError: No image at all.
        """
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
        absent = [name for name, one in by_class.items() if not one.objects]
        if absent:
            print_log(f'without an object in this split, left out of the mean: {", ".join(absent)}', 'current')


def _arrays(instances: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: instances[name].cpu().numpy() for name in ('bboxes', 'scores', 'labels') if name in instances}


def _of_class(result: Mapping[str, Any], label: int) -> ImageBoxes:
    found, counted, difficult = (result[part] for part in ('found', 'counted', 'difficult'))
    mine = found['labels'] == label
    parts = [part['bboxes'][part['labels'] == label].reshape(-1, 4) for part in (counted, difficult)]
    marks = np.repeat([False, True], [len(part) for part in parts])
    return ImageBoxes(found['bboxes'][mine], found['scores'][mine], np.concatenate(parts), marks)
