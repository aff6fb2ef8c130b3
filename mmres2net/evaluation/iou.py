"""Mean IoU of a semantic segmentation, as a metric of MMEngine, over all classes and of each class.

mmseg's ``IoUMetric`` defines the same metrics, but logs the classes' without returning them, rounds to two decimals,
names accuracy first, which is what ``save_best='auto'`` then follows, and passes over labels that no class has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmres2net.errors import UserError
from mmres2net.evaluation.labels import check_labels, class_names, class_table
from mmres2net.registry import METRICS


@METRICS.register_module()
class IoUMetric(BaseMetric):
    """Give ``mIoU``, ``aAcc`` and ``mAcc``, then ``IoU_NAME`` and ``Acc_NAME`` of each class, in percent.

    Pixels are counted over the split. A class that is neither annotated nor predicted has NaN, and means leave it
    out; one that is predicted but nowhere annotated has an IoU of 0 and no accuracy. Pixels annotated as
    ``ignore_index`` do not count.
    """

    default_prefix = ''

    def __init__(self, *, ignore_index: int = 255, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the pixels of a batch of dicts as mmseg's models return them.

        ``pred_sem_seg`` and ``gt_sem_seg`` have ``data`` (1, H, W) or (H, W) of labels. A UserError says that there is
        no annotation, one of another size, or labels that no class has.
        """
        classes = len(class_names(self.dataset_meta))
        for sample in data_samples:
            name = sample.get('img_path', 'a sample')
            if 'gt_sem_seg' not in sample:
                raise UserError(f'{name} holds no annotation: LoadAnnotations has to be in the test pipeline')
            label = sample['gt_sem_seg']['data'].squeeze(0).cpu().long()
            predicted = sample['pred_sem_seg']['data'].squeeze(0).cpu().long()
            if label.shape != predicted.shape:
                raise UserError(
                    f'{name}: predicted as {tuple(predicted.shape)}, annotated as {tuple(label.shape)}; a mask file '
                    'needs the size of its image, and in the test pipeline LoadAnnotations has to come after Resize'
                )
            counted = label != self.ignore_index
            label, predicted = label[counted], predicted[counted]
            check_labels(label.numpy(), classes, f'{name} is annotated with')
            check_labels(predicted.numpy(), classes, f'{name} is predicted with')
            counted = label[label == predicted], predicted, label
            self.results.append(torch.stack([torch.bincount(one, minlength=classes) for one in counted]))

    def compute_metrics(self, results: list[torch.Tensor]) -> dict[str, float]:
        """Sum the counts up, and log a table of the classes."""
        if not results:
            raise UserError('no image was evaluated: is the split empty, or the data loader?')
        both, predicted, annotated = torch.stack(results).sum(0).double().numpy()
        with np.errstate(invalid='ignore'):  # 0 / 0 is NaN: the class has no such metric
            iou, accuracy = 100 * both / (predicted + annotated - both), 100 * both / annotated
            overall = float(100 * both.sum() / annotated.sum())
        metrics = {'mIoU': _mean(iou), 'aAcc': overall, 'mAcc': _mean(accuracy)}
        names = class_names(self.dataset_meta)
        self._log(names, metrics, iou, accuracy)
        for kind, values in {'IoU': iou, 'Acc': accuracy}.items():
            metrics |= {f'{kind}_{name}': float(value) for name, value in zip(names, values, strict=True)}
        return metrics

    def _log(self, names: Sequence[str], metrics: Mapping[str, float], iou: np.ndarray, accuracy: np.ndarray) -> None:
        rows = [[name, float(i), float(a)] for name, i, a in zip(names, iou, accuracy, strict=True)]
        table = class_table(['class', 'IoU', 'accuracy'], [*rows, ['mean', metrics['mIoU'], metrics['mAcc']]])
        print_log(f'segmentation by class, in percent:\n{table}', 'current')


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')
