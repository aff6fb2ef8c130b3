"""The checks of one sample: its image file, its annotations against the image, its mask."""

from __future__ import annotations

import hashlib
import io
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mmres2net.data.formats.base import (
    Annotation,
    Box,
    Finding,
    Sample,
    Size,
    Split,
    is_polygon,
    polygon_numbers,
    regular_file,
    rle_fault,
)
from mmres2net.data.formats.masks import value_counts
from mmres2net.errors import UserError
from mmres2net.text import join_some

TOLERANCE = 1.0  # pixels: annotations are rounded, and VOC's count from 1
TINY = 1.0  # pixels
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
UNUSUAL = {
    **dict.fromkeys(('1', 'L'), 'gray image'),
    **dict.fromkeys(('LA', 'La', 'RGBA', 'RGBa', 'PA'), 'image with alpha'),
    **dict.fromkeys(('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N'), 'deep image'),
    'P': 'palette image',
    'CMYK': 'CMYK image',
    'YCCK': 'CMYK image',
}
# What OpenCV, the image loader of mmcv, reads of what Pillow reads.
LOADABLE = {'JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000', 'AVIF', 'SUN'}
END_MARKS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


@dataclass
class Checked:
    """What the check of one sample found; ``digest`` is that of a readable image file that was read to its end."""

    findings: list[Finding] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    values: Counter[int] | None = None  # of the mask: pixels by value
    digest: bytes | None = None
    readable: bool = False
    size: Size | None = None


def check_sample(split: Split, sample: Sample, *, decode: bool = True) -> Checked:
    """Check a sample: image, annotations and mask.

    Args:
        split: The data set of the sample.
        sample: The sample.
        decode: Decode image and mask to the end; else read headers and check the end of the file.
    """
    size, annotations, findings = split.parse(sample)
    checked = Checked(findings, annotations)
    seen = _check_image(split, sample, size, checked, decode) if sample.pixels is None else sample.pixels.shape[1::-1]
    checked.size = seen or size
    if split.image_fault is not None and checked.readable and decode:
        fault = split.image_fault(sample.image)
        findings += [Finding('unusable image', sample.image, fault.removeprefix(f'{sample.image}: '))] if fault else []
    for annotation in annotations:
        findings += annotation_faults(annotation, checked.size, split)
    if sample.mask:
        _check_mask(split, sample.mask, checked.size, checked, decode)
    elif split.unit == 'objects' and not annotations and not findings:
        findings.append(Finding('image without annotations', sample.image))
    return checked


def _check_image(split: Split, sample: Sample, size: Size | None, checked: Checked, decode: bool) -> Size | None:
    """Check an image file and return the (width, height) that a loader which honors EXIF gives it."""
    path = sample.image
    try:
        data: Any = regular_file(path)
        if decode:
            content = Path(path).read_bytes()
            checked.digest, data = hashlib.blake2b(content, digest_size=16).digest(), io.BytesIO(content)
        with Image.open(data) as image:
            if image.format not in LOADABLE and not split.any_format:
                raise ValueError(f'{image.format}, which OpenCV does not read; convert it to PNG or JPEG')
            if decode or not _ends_well(path, image.format):
                image.load()
            # Pillow decodes a PNG to its end to search for the tag.
            has_tag = split.turns_images and (decode or image.format != 'PNG' or 'exif' in image.info)
            orientation = image.getexif().get(ORIENTATION, 1) if has_tag else 1
            stored: Size = image.size
            kind = UNUSUAL.get(image.mode)
    except FileNotFoundError:
        checked.findings.append(Finding('missing image', path, sample.hint))
        return None
    except Exception as error:  # damaged files raise many kinds of error, all of which mean the same here
        checked.digest = None
        checked.findings.append(Finding('unreadable image', path, _why(error, path)))
        return None
    checked.readable = True
    seen = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if kind:
        checked.findings.append(Finding(kind, path))
    if size is not None and size != seen:
        turned = f', turned by EXIF orientation {orientation}' if seen != stored else ''
        what = f'{seen[0]}x{seen[1]} pixels{turned}, but annotated as {size[0]}x{size[1]}'
        checked.findings.append(Finding('wrong image size', path, what))
    elif orientation in range(2, 9):
        checked.findings.append(Finding('EXIF orientation', path, str(orientation)))
    return seen


def _ends_well(path: str, file_format: str | None) -> bool:
    """Return whether the file ends as a complete file of its format; formats without an end mark pass."""
    if file_format not in END_MARKS:
        return True
    with open(path, 'rb') as file:
        file.seek(max(Path(path).stat().st_size - 16, 0))
        return file.read().rstrip(b'\0').endswith(END_MARKS[file_format])


def _why(error: Exception, path: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        length = Path(path).stat().st_size
        return f'none of the known image formats ({length:,} bytes)' if length else 'an empty file'
    return str(error) or type(error).__name__


def annotation_faults(annotation: Annotation, size: Size | None, split: Split) -> Iterator[Finding]:
    """Yield what is wrong with an object in an image of ``size``; None is not known."""
    if annotation.box is not None:
        yield from _box_faults(annotation, annotation.box, size, split.training)
    if annotation.box is None or annotation.dropped or annotation.label not in split.classes:
        return
    kind, what = _mask_fault(annotation.segmentation, size, split.training)
    if kind in ('object without mask', 'broken mask of an object') and not split.needs_masks:
        kind = 'unread mask of an object' if annotation.segmentation else ''
    if kind:
        yield Finding(kind, annotation.where, what)


def _box_faults(annotation: Annotation, box: Box, size: Size | None, training: bool) -> Iterator[Finding]:
    x1, y1, x2, y2 = box
    what = f'{x1:g}, {y1:g} to {x2:g}, {y2:g}: {x2 - x1:g} wide, {y2 - y1:g} high'
    if not all(map(math.isfinite, box)):
        yield Finding('box that is not finite', annotation.where, what)
        return
    if annotation.dropped:
        yield Finding('annotation left out', annotation.where, annotation.dropped)
        return
    inside = (x1, y1, x2, y2) if size is None else (max(x1, 0), max(y1, 0), min(x2, size[0]), min(y2, size[1]))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        order = ', its corners in the wrong order' if x2 < x1 or y2 < y1 else ''
        place = f', outside the image of {size[0]}x{size[1]}' if size and x2 > x1 and y2 > y1 else ''
        harmful = training and not annotation.ignored
        yield Finding('empty box' if harmful else 'annotation left out', annotation.where, f'{what}{order}{place}')
        return
    if size is not None and _leaves(array('d', box), size):
        yield Finding('box beyond the image', annotation.where, f'{what} in an image of {size[0]}x{size[1]}')
    if min(x2 - x1, y2 - y1) <= TINY:
        yield Finding('tiny box', annotation.where, what)


def _leaves(points: array[float], size: Size) -> bool:
    """Return whether one of the points x, y, x, y, ... is outside an image by more than the tolerance."""
    return min(points) < -TOLERANCE or max(points[::2]) > size[0] + TOLERANCE or max(points[1::2]) > size[1] + TOLERANCE


def _mask_fault(segmentation: Any, size: Size | None, training: bool) -> tuple[str, str]:
    """Return kind and text of what is wrong with polygons or run lengths; empty if they are sound."""
    broken, without = 'broken mask of an object', 'object without mask'
    if not segmentation:
        return without, 'no segmentation'
    if isinstance(segmentation, dict):
        fault = rle_fault(segmentation)
        stated = tuple(segmentation.get('size') or ())[::-1]
        if not fault and size is not None and stated != size:
            fault = f'run lengths for {stated[0]}x{stated[1]}, the image has {size[0]}x{size[1]}'
        return (broken, fault) if fault else ('', '')
    if not isinstance(segmentation, list):
        return broken, f'{segmentation!r:.60} is neither polygons nor run lengths'
    polygons = [polygon_numbers(polygon) for polygon in segmentation]
    for numbers, polygon in zip(polygons, segmentation, strict=True):
        if numbers is None:
            return broken, f'{polygon!r:.60} is not a list of finite numbers'
    points = [numbers for numbers in polygons if numbers is not None and is_polygon(numbers)]
    if len(points) < len(polygons):
        short = next(numbers for numbers in polygons if numbers is not None and not is_polygon(numbers))
        return 'polygon left out' if points or training else without, f'a polygon of {len(short)} numbers'
    outside = [numbers for numbers in points if size is not None and _leaves(numbers, size)]
    if outside and size is not None:
        low_x, low_y, high_x, high_y = (f(outside[0][i::2]) for f in (min, max) for i in (0, 1))
        what = f'{low_x:g}, {low_y:g} to {high_x:g}, {high_y:g} in an image of {size[0]}x{size[1]}'
        return 'polygon beyond the image', what
    return '', ''


def _check_mask(split: Split, path: str, size: Size | None, checked: Checked, decode: bool) -> None:
    values = split.mask_values
    try:
        with Image.open(regular_file(path)) as image:
            found = None
            if decode or not _ends_well(path, image.format):
                image.load()
            if decode:
                found = value_counts(image if split.read_mask is None else Image.fromarray(split.read_mask(path)))
            channels = len(image.getbands())
    except FileNotFoundError:
        checked.findings.append(Finding('missing mask', path))
        return
    except UserError as error:
        checked.findings.append(Finding('unusable mask', path, str(error).removeprefix(f'{path}: ')))
        return
    except Exception as error:  # as with images
        checked.findings.append(Finding('unreadable mask', path, _why(error, path)))
        return
    if size is not None and image.size != tuple(size):
        what = f'{image.size[0]}x{image.size[1]}, the image {size[0]}x{size[1]}'
        checked.findings.append(Finding('wrong mask size', path, what))
    if not values:  # the meaning of the values is not known
        return
    if channels > 1 and split.read_mask is None:
        checked.findings.append(Finding('color mask', path, image.mode))
    elif found is not None:
        checked.values = found
        checked.findings += _value_findings(split, path, found)


def _value_findings(split: Split, path: str, found: Counter[int]) -> list[Finding]:
    values = split.mask_values
    unknown = [f'{value} ({count:,} pixels)' for value, count in sorted(found.items()) if value not in values]
    if unknown:
        return [Finding('mask value without class', path, join_some(unknown, limit=8))]
    if not any(values.get(value) for value in found):
        return [Finding('mask without class', path)]
    if split.read_mask is not None and len(found) == 1:
        return [Finding('mask of one class', path, values[next(iter(found))])]
    return []
