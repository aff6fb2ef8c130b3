"""Annotations of a COCO file as the evaluation reads them."""

import math
from collections.abc import Mapping
from typing import Any

from pycocotools import mask as coco_masks

from mmres2net.data.formats.base import is_polygon, polygon_numbers, rle_fault
from mmres2net.data.formats.coco import read_box, read_crowd


def usable_annotation(entry: Mapping[str, Any], kind: str, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return box, crowd flag, area and, for ``segm``, mask of an annotation.

    Without ``iscrowd`` it is no crowd; without ``area`` its area is that of its mask or box.

    Args:
        entry: An annotation of a COCO file.
        kind: ``bbox`` or ``segm``.
        image: The entry of its image; for polygons with ``width`` and ``height``.

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
        result['segmentation'] = _run_lengths(entry.get('segmentation'), image)
    if area is None or not math.isfinite(area):
        area = float(coco_masks.area(result['segmentation'])) if kind == 'segm' else entry['bbox'][2] * entry['bbox'][3]
    return {**result, 'area': area}


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any]:
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
        return segmentation if compressed else coco_masks.frPyObjects(segmentation, height, width)
    numbers = [polygon_numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else [None]
    if any(one is None for one in numbers):
        raise ValueError(f'its segmentation {segmentation!r:.60} is neither polygons nor run lengths')
    polygons = [list(one) for one in numbers if one is not None and is_polygon(one)]
    if not polygons:
        raise ValueError("no polygon of three points, but metric='segm' needs the mask of each object")
    return coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
