"""The COCO protocol on plain dicts: twelve figures of boxes or masks, over all classes and by class.

The matching is done by faster-coco-eval or by pycocotools, the protocol's own implementation; tests hold that they
agree to the last digit. Protocol: https://cocodataset.org/#detection-eval (IoU 0.50 to 0.95 by 0.05; at most 1, 10 or
100 detections an image; small, medium and large split at 32 x 32 and 96 x 96 pixels; crowds ignored).
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from mmres2net.errors import UserError

KINDS = ('bbox', 'segm')
PACKAGES = {'faster': 'faster_coco_eval', 'pycocotools': 'pycocotools'}
# Index of the area range in the evaluators' arrays.
AREAS = {'s': 1, 'm': 2, 'l': 3}
LIMITS = (1, 10, 100)


@dataclass(frozen=True)
class Figures:
    """Results of one kind; -1 where there is no object that counts.

    Attributes:
        overall: ``mAP``, ``mAP_50``, ``mAP_75``, ``mAP_s``, ``mAP_m``, ``mAP_l``, ``AR@1``, ``AR@10``, ``AR@100``,
            ``AR_s@100``, ``AR_m@100``, ``AR_l@100``, in this order, as fractions.
        by_class: The same of each class alone, by its name.
    """

    overall: dict[str, float]
    by_class: dict[str, dict[str, float]]


def load_evaluator(name: str) -> ModuleType:
    """Import the package of an evaluator.

    Raises:
        UserError: Another name than ``faster`` or ``pycocotools``, or the package is not installed.
    """
    if name not in PACKAGES:
        raise UserError(f'evaluator={name!r} is not known: choose one of {", ".join(PACKAGES)}')
    try:
        package = importlib.import_module(PACKAGES[name])
        if name == 'pycocotools':  # it imports none of its own modules
            for module in ('coco', 'cocoeval', 'mask'):
                importlib.import_module(f'pycocotools.{module}')
    except ImportError as error:
        distribution = PACKAGES[name].replace('_', '-')
        other = next(key for key in PACKAGES if key != name)
        raise UserError(
            f'evaluator={name!r} needs the package {distribution}, which cannot be imported ({error}): '
            f'pip install {distribution}, or set evaluator={other!r}, which gives the same figures'
        ) from error
    return package


def evaluate(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], kind: str, *, evaluator: str = 'faster'
) -> Figures:
    """Evaluate detections by the COCO protocol.

    Args:
        truth: A COCO annotation dict with ``images``, ``categories`` and ``annotations``. All its images and
            categories count. It stays as it is.
        detections: Dicts with ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) or, for
            masks, ``segmentation`` (compressed RLE) and no ``bbox``, or else areas would be those of boxes.
        kind: ``bbox`` or ``segm``.
        evaluator: ``faster`` or ``pycocotools``.

    Raises:
        UserError: As :func:`load_evaluator`, and detections of an image that ``truth`` does not have.
    """
    package = load_evaluator(evaluator)
    known = {image['id'] for image in truth['images']}
    strange = {detection['image_id'] for detection in detections} - known
    if strange:
        raise UserError(f'detections of image {min(strange, key=str)!r}, which is not in the annotations')
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        ours, theirs = _indices(package, truth, detections)
        make = package.COCOeval_faster if evaluator == 'faster' else package.cocoeval.COCOeval
        run = make(ours, theirs, iouType=kind)
        run.params.maxDets = list(LIMITS)
        run.evaluate()
        run.accumulate()
    precision, recall = np.asarray(run.eval['precision']), np.asarray(run.eval['recall'])
    names = {category['id']: category['name'] for category in truth['categories']}
    by_class = {
        names[id_]: _figures(precision[:, :, k : k + 1], recall[:, k : k + 1])
        for k, id_ in enumerate(run.params.catIds)
    }
    return Figures(_figures(precision, recall), by_class)


def _indices(package: ModuleType, truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Return the package's objects of truth and detections, on copies: the packages write into what they get."""
    make = package.coco.COCO
    ours = make()
    ours.dataset = {
        'info': {},
        'images': list(truth['images']),
        'categories': list(truth['categories']),
        'annotations': [dict(annotation) for annotation in truth['annotations']],
    }
    ours.createIndex()
    if detections:
        return ours, ours.loadRes([dict(detection) for detection in detections])
    theirs = make()
    theirs.dataset = dict(ours.dataset, annotations=[])
    theirs.createIndex()
    return ours, theirs


def _figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """Return the means of ``precision`` (IoU, recall, class, area, limit) and ``recall`` (IoU, class, area, limit)."""
    figures = {
        'mAP': _mean(precision[:, :, :, 0, -1]),
        'mAP_50': _mean(precision[0, :, :, 0, -1]),
        'mAP_75': _mean(precision[5, :, :, 0, -1]),
    }
    figures |= {f'mAP_{size}': _mean(precision[:, :, :, a, -1]) for size, a in AREAS.items()}
    figures |= {f'AR@{limit}': _mean(recall[:, :, 0, m]) for m, limit in enumerate(LIMITS)}
    figures |= {f'AR_{size}@{LIMITS[-1]}': _mean(recall[:, :, a, -1]) for size, a in AREAS.items()}
    return figures


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
