"""The COCO protocol on plain dicts: twelve metrics of boxes or masks, over all classes and by class.

The matching is done by faster-coco-eval or by pycocotools, the protocol's own implementation; tests hold that they
agree to the last digit. Protocol: https://cocodataset.org/#detection-eval (IoU 0.50 to 0.95 by 0.05; at most 1, 10 or
100 detections an image; small, medium and large split at 32 x 32 and 96 x 96 pixels; crowds ignored).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from mmres2net.data.formats.base import is_polygon, polygon_numbers, rle_fault
from mmres2net.data.formats.coco import read_box, read_crowd
from mmres2net.errors import UserError

KINDS = ('bbox', 'segm')
PACKAGES = {'faster': 'faster_coco_eval', 'pycocotools': 'pycocotools'}
# Index of the area range in the evaluators' arrays.
AREAS = {'s': 1, 'm': 2, 'l': 3}
LIMITS = (1, 10, 100)


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
            f'pip install {distribution}, or set evaluator={other!r}, which gives the same metrics'
        ) from error
    return package


def evaluate(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], kind: str, *, evaluator: str = 'faster'
) -> Metrics:
    """Evaluate detections by the COCO protocol.

    Args:
        truth: A COCO annotation dict with ``images``, ``categories`` and ``annotations``. All its images and
            categories count; ids may be of any kind, and need not differ between annotations. It stays as it is.
        detections: Dicts with ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) or, for
            masks, ``segmentation`` (compressed RLE) and no ``bbox``, or else areas would be those of boxes.
        kind: ``bbox`` or ``segm``.
        evaluator: ``faster`` or ``pycocotools``.

    Raises:
        UserError: As :func:`load_evaluator`; detections of an image that ``truth`` does not have; an annotation that
            cannot be evaluated.
    """
    package = load_evaluator(evaluator)
    images = {image['id']: image for image in truth['images']}
    unknown = {detection['image_id'] for detection in detections} - set(images)
    if unknown:
        raise UserError(f'detections of image {min(unknown, key=str)!r}, which is not in the annotations')
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        ours, theirs = _indices(package, truth, detections, kind)
        make = package.COCOeval_faster if evaluator == 'faster' else package.cocoeval.COCOeval
        run = make(ours, theirs, iouType=kind)
        run.params.maxDets = list(LIMITS)
        run.evaluate()
        run.accumulate()
    precision, recall = np.asarray(run.eval['precision']), np.asarray(run.eval['recall'])
    by_class = {
        category['name']: _metrics(precision[:, :, k : k + 1], recall[:, k : k + 1])
        for k, category in enumerate(truth['categories'])
    }
    return Metrics(_metrics(precision, recall), by_class)


def usable_annotation(
    entry: Mapping[str, Any], kind: str, image: Mapping[str, Any], masks: ModuleType
) -> dict[str, Any]:
    """Return box, crowd flag, area and, for ``segm``, mask of an annotation as both evaluators read them.

    Without ``iscrowd`` it is no crowd; without ``area`` its area is that of its mask or box.

    Args:
        entry: An annotation of a COCO file.
        kind: ``bbox`` or ``segm``.
        image: The entry of its image; for polygons with ``width`` and ``height``.
        masks: The module ``mask`` of the evaluator's package.

    Raises:
        ValueError: It cannot be evaluated.
    """
    if not all(map(math.isfinite, read_box(entry))):
        raise ValueError(f'bbox is {entry["bbox"]!r}')
    result: dict[str, Any] = {'bbox': list(entry['bbox']), 'iscrowd': int(read_crowd(entry))}
    area = entry.get('area')
    if area is not None and not isinstance(area, int | float):
        raise ValueError(f'area is {area!r}, not a number')
    if kind == 'segm':
        result['segmentation'] = _run_lengths(entry.get('segmentation'), image, masks)
    if area is None or not math.isfinite(area):
        area = float(masks.area(result['segmentation'])) if kind == 'segm' else entry['bbox'][2] * entry['bbox'][3]
    return {**result, 'area': area}


def _run_lengths(segmentation: Any, image: Mapping[str, Any], masks: ModuleType) -> dict[str, Any]:
    """Return a mask as compressed run lengths of the image's size; polygons of fewer than three points do not count."""
    if not segmentation:
        raise ValueError("no segmentation, but metric='segm' needs the mask of each object")
    height, width = image.get('height'), image.get('width')
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f'width and height of its image are {width!r} and {height!r}, not whole numbers')
    if isinstance(segmentation, dict):
        fault = rle_fault(segmentation)
        if fault or list(segmentation['size']) != [height, width]:
            raise ValueError(fault or f'run lengths of size {segmentation["size"]} in an image of {[height, width]}')
        compressed = isinstance(segmentation['counts'], str | bytes)
        return segmentation if compressed else masks.frPyObjects(segmentation, height, width)
    numbers = [polygon_numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else [None]
    if any(one is None for one in numbers):
        raise ValueError(f'its segmentation {segmentation!r:.60} is neither polygons nor run lengths')
    polygons = [list(one) for one in numbers if one is not None and is_polygon(one)]
    if not polygons:
        raise ValueError("no polygon of three points, but metric='segm' needs the mask of each object")
    return masks.merge(masks.frPyObjects(polygons, height, width))


def _indices(
    package: ModuleType, truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], kind: str
) -> tuple[Any, Any]:
    """Return the package's objects of truth and detections.

    On copies, as the packages write into what they get, and with ids from 1 on: both packages read the id 0 as "none"
    where they note matches, keep one annotation for each id, and one of them takes integers only.
    """
    ids = [image['id'] for image in truth['images']]
    if all(isinstance(id_, int | float) for id_ in ids):
        ids.sort()  # the protocol's order of images, by which detections of equal score are ranked
    images = {id_: number for number, id_ in enumerate(ids, 1)}
    entries = {image['id']: image for image in truth['images']}
    categories = {category['id']: number for number, category in enumerate(truth['categories'], 1)}
    annotations = []
    for i, entry in enumerate(truth['annotations']):
        try:
            usable = usable_annotation(entry, kind, entries[entry['image_id']], package.mask)
        except ValueError as error:
            raise UserError(f'annotations[{i}] cannot be evaluated: {error}') from error
        place = {'image_id': images[entry['image_id']], 'category_id': categories[entry['category_id']]}
        annotations.append({'id': i + 1, **place, **usable})
    ours = package.coco.COCO()
    ours.dataset = {
        'info': {},
        'images': [{**image, 'id': images[image['id']]} for image in truth['images']],
        'categories': [{**category, 'id': categories[category['id']]} for category in truth['categories']],
        'annotations': annotations,
    }
    ours.createIndex()
    if detections:
        numbers = [(images[one['image_id']], categories[one['category_id']]) for one in detections]
        found = [{**one, 'image_id': i, 'category_id': c} for one, (i, c) in zip(detections, numbers, strict=True)]
        return ours, ours.loadRes(found)
    theirs = package.coco.COCO()
    theirs.dataset = dict(ours.dataset, annotations=[])
    theirs.createIndex()
    return ours, theirs


def _metrics(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """Return the means of ``precision`` (IoU, recall, class, area, limit) and ``recall`` (IoU, class, area, limit)."""
    metrics = {
        'mAP': _mean(precision[:, :, :, 0, -1]),
        'mAP_50': _mean(precision[0, :, :, 0, -1]),
        'mAP_75': _mean(precision[5, :, :, 0, -1]),
    }
    metrics |= {f'mAP_{size}': _mean(precision[:, :, :, a, -1]) for size, a in AREAS.items()}
    metrics |= {f'AR@{limit}': _mean(recall[:, :, 0, m]) for m, limit in enumerate(LIMITS)}
    metrics |= {f'AR_{size}@{LIMITS[-1]}': _mean(recall[:, :, a, -1]) for size, a in AREAS.items()}
    return metrics


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
