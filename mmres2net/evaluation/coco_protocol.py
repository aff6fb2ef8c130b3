"""The twelve metrics of the COCO protocol, of boxes or masks, over all classes and by class.

Protocol: https://cocodataset.org/#detection-eval (IoU 0.50 to 0.95 by 0.05; at most 1, 10 or 100 detections an image;
small, medium and large split at 32 x 32 and 96 x 96 pixels; crowds ignored). Tests hold that the metrics are those of
pycocotools, the protocol's own implementation, to the last digit.
"""

from dataclasses import dataclass

import numpy as np

from mmres2net.evaluation.matches import Matches, average_precision, recall_at

SIZES = {'s': 1, 'm': 2, 'l': 3}  # index of the range of areas


@dataclass(frozen=True)
class Metrics:
    """Results of one kind; -1 where there is no object that counts.

    Attributes:
        overall: ``mAP``, ``mAP_50``, ``mAP_75``, ``mAP_s``, ``mAP_m``, ``mAP_l``, ``AR@1``, ``AR@10``, ``AR@100``,
            ``AR_s@100``, ``AR_m@100``, ``AR_l@100``, in this order, as fractions.
        by_class: The same of each class alone, by its name.
    """

    overall: dict[str, float]
    by_class: dict[str, dict[str, float]]


def evaluate(matches: Matches) -> Metrics:
    """Return the metrics of what :func:`mmres2net.evaluation.matches.match` found."""
    ap = average_precision(matches)
    values = {'mAP': ap, 'mAP_50': ap[:1], 'mAP_75': ap[5:6]}
    values |= {f'mAP_{size}': average_precision(matches, area) for size, area in SIZES.items()}
    values |= {f'AR@{limit}': recall_at(matches, limit) for limit in (1, 10, 100)}
    values |= {f'AR_{size}@100': recall_at(matches, 100, area) for size, area in SIZES.items()}
    by_class = {
        str(name): {metric: _mean(each[:, k]) for metric, each in values.items()}
        for k, name in enumerate(matches.classes)
    }
    return Metrics({metric: _mean(each) for metric, each in values.items()}, by_class)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else -1.0
