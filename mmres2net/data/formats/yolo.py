"""YOLO's text files: a line an object, its class by number, a box or a polygon in shares of the image's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mmres2net.data.formats.base import Annotation, Finding, Parsed, Sample, Size, regular_file
from mmres2net.data.formats.coco import why_dropped
from mmres2net.text import join_some

TEXT_LIMIT = 32 * 2**20  # bytes of one annotation file
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
FAR = 1.5  # sizes of the image: what is further away than this is no share of its size


def image_size(path: str) -> Size | None:
    """Return the (width, height) of an image as loaders turn it, from its header; None if it cannot be read."""
    try:
        with Image.open(regular_file(path)) as image:
            turned = image.format in ('JPEG', 'MPO', 'TIFF', 'WEBP') or 'exif' in image.info
            orientation = image.getexif().get(ORIENTATION, 1) if turned else 1
            return (image.height, image.width) if orientation in (5, 6, 7, 8) else image.size
    except Exception:  # damaged files raise many kinds of error; the check of the image names it
        return None


def read_yolo(path: str, classes: Sequence[str]) -> tuple[list[Annotation], list[Finding]]:
    """Return the objects in a text file with boxes and polygons in shares of the image's size.

    Args:
        path: The file; empty: an image without objects.
        classes: Their names; empty: the numbers are the names.
    """
    if not path:
        return [], []
    try:
        text = Path(regular_file(path, TEXT_LIMIT)).read_bytes().decode('utf-8-sig')
    except (OSError, ValueError) as error:
        return [], [Finding('broken annotation', path, str(error))]
    objects, findings = [], []
    for number, line in enumerate(text.splitlines(), 1):
        where = f'{path} line {number}'
        if fields := line.split():
            try:
                objects.append(_object(where, fields, classes))
            except IndexError:
                what = f'{fields[0]}; there are {len(classes)} classes, numbered from 0: {join_some(classes)}'
                findings.append(Finding('label without class', where, what))
            except (ValueError, OverflowError) as error:
                findings.append(Finding('broken annotation', where, str(error)))
    return objects, findings


def _object(where: str, fields: Sequence[str], classes: Sequence[str]) -> Annotation:
    number, *values = (float(field) for field in fields)
    if not number.is_integer() or number < 0:
        raise ValueError(f'the class is {fields[0]!r}, not a whole number from 0 on')
    label = classes[int(number)] if classes else f'{int(number)}'
    if len(values) < 4 or len(values) % 2:
        raise ValueError(f'{len(fields)} numbers; write CLASS X Y WIDTH HEIGHT, or CLASS and the points of a polygon')
    if not all(abs(value - 0.5) <= FAR for value in values):
        raise ValueError(f'{join_some(fields[1:])}: boxes and points are shares of the image size, between 0 and 1')
    if len(values) == 4:
        x, y, width, height = values
        return Annotation(where, label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    xs, ys = values[::2], values[1::2]
    return Annotation(where, label, (min(xs), min(ys), max(xs), max(ys)), [values])


def parse_yolo(sample: Sample, classes: Sequence[str]) -> Parsed:
    """Return size and objects of one image in pixels; ``raw`` of the sample is its text file.

    The file of an image that cannot be read is not read either.
    """
    size = sample.size or image_size(sample.image)
    if size is None:
        return None, [], []
    objects, findings = read_yolo(sample.raw, classes)
    return size, [_scaled(annotation, size) for annotation in objects], findings


def _scaled(shares: Annotation, size: Size) -> Annotation:
    x1, y1, x2, y2 = shares.box or (0, 0, 0, 0)
    box = x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]
    polygons = [[v * size[i % 2] for i, v in enumerate(points)] for points in shares.segmentation or ()]
    area = sum(map(polygon_area, polygons)) if polygons else None
    return Annotation(shares.where, shares.label, box, polygons or None, why_dropped(box, size), area=area)


def polygon_area(points: Sequence[float]) -> float:
    """Return the area of a polygon x, y, x, y, ... in square pixels."""
    xs, ys = points[::2], points[1::2]
    return abs(math.fsum(x * (ys[(i + 1) % len(ys)] - ys[i - 1]) for i, x in enumerate(xs))) / 2
