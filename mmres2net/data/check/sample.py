"""The checks of one sample: its image file, its annotations against the image, its mask."""

import hashlib
import io
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mmres2net.data.formats import base
from mmres2net.data.formats.base import Annotation, Box, Finding, Sample, Size, Split, regular_file
from mmres2net.data.formats.listed import value_counts
from mmres2net.errors import UserError
from mmres2net.text import join_some

TOLERANCE = 1.0  # pixels: annotations are rounded, and VOC's count from 1
TINY = 1.0  # pixels
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
UNUSUAL = {'1': 'gray', 'L': 'gray', 'P': 'palette', 'CMYK': 'CMYK', 'YCCK': 'CMYK', 'I': 'deep', 'F': 'deep'}  # modes
# What OpenCV, the image loader of mmcv, reads of what Pillow reads.
LOADABLE = {'JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000', 'AVIF', 'SUN'}
END_MARKS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


@dataclass
class Checked:
    """What the check of one sample found."""

    findings: list[Finding]
    annotations: list[Annotation]
    size: Size | None  # as a loader sees the image
    values: Counter[int] | None = None  # of the mask: pixels by value
    digest: bytes | None = None  # of a readable image file; empty where it was not read to its end


def check_sample(split: Split, sample: Sample, *, decode: bool = True) -> Checked:
    """Check a sample: image, annotations and mask.

    Args:
        split: The data set of the sample.
        sample: The sample.
        decode: Decode image and mask to the end; else read headers and check the end of the file.
    """
    size, annotations, findings = split.parse(sample)
    checked = Checked(findings, annotations, size)
    if sample.pixels is not None:
        checked.size = sample.pixels.shape[1::-1]
    else:
        with _as_findings(findings, 'image', sample.image, sample.hint):
            checked.size, checked.digest = _read_image(split, sample.image, size, findings, decode)
    if split.image_fault is not None and checked.digest is not None and decode:
        fault = split.image_fault(sample.image)
        findings += [Finding('unusable image', sample.image, fault.removeprefix(f'{sample.image}: '))] if fault else []
    for annotation in annotations:
        findings += annotation_faults(annotation, checked.size, split)
    if sample.mask:
        with _as_findings(findings, 'mask', sample.mask):
            checked.values = _read_mask(split, sample.mask, checked.size, findings, decode)
    elif split.unit == 'objects' and not annotations and not findings:
        findings.append(Finding('image without annotations', sample.image))
    return checked


@contextmanager
def _as_findings(findings: list[Finding], what: str, path: str, hint: str = '') -> Iterator[None]:
    """Turn what is raised into a finding: that an image or a mask is missing, unusable or unreadable."""
    try:
        yield
    except FileNotFoundError:
        findings.append(Finding(f'missing {what}', path, hint))
    except UserError as error:
        findings.append(Finding(f'unusable {what}', path, str(error).removeprefix(f'{path}: ')))
    except Exception as error:  # damaged files raise many kinds of error, all of which mean the same here
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            length = Path(path).stat().st_size
            reason = f'none of the known image formats ({length:,} bytes)' if length else 'an empty file'
        findings.append(Finding(f'unreadable {what}', path, reason))


def _read_image(
    split: Split, path: str, size: Size | None, findings: list[Finding], decode: bool
) -> tuple[Size, bytes]:
    """Return the (width, height) that a loader which honors EXIF gives an image, and the digest of its file."""
    data: Any = regular_file(path)
    digest = b''
    if decode:
        content = Path(path).read_bytes()
        digest, data = hashlib.blake2b(content, digest_size=16).digest(), io.BytesIO(content)
    with Image.open(data) as image:
        if image.format not in LOADABLE and not split.any_format:
            raise ValueError(f'{image.format}, which OpenCV does not read; convert it to PNG or JPEG')
        if decode or not _ends_well(path, image.format):
            image.load()
        # Pillow decodes a PNG to its end to search for the tag.
        has_tag = split.turns_images and (decode or image.format != 'PNG' or 'exif' in image.info)
        orientation = image.getexif().get(ORIENTATION, 1) if has_tag else 1
        stored: Size = image.size
        kind = UNUSUAL.get(image.mode.partition(';')[0])
        has_alpha = image.mode[-1] in 'aA'
    seen = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if kind or has_alpha:
        findings.append(Finding('image with alpha' if has_alpha else f'{kind} image', path))
    if size is not None and size != seen:
        turned = f', turned by EXIF orientation {orientation}' if seen != stored else ''
        what = f'{seen[0]}x{seen[1]} pixels{turned}, but annotated as {size[0]}x{size[1]}'
        findings.append(Finding('wrong image size', path, what))
    elif orientation in range(2, 9):
        findings.append(Finding('EXIF orientation', path, str(orientation)))
    return seen, digest


def _ends_well(path: str, file_format: str | None) -> bool:
    """Return whether the file ends as a complete file of its format; formats without an end mark pass."""
    if file_format not in END_MARKS:
        return True
    with open(path, 'rb') as file:
        file.seek(max(Path(path).stat().st_size - 16, 0))
        return file.read().rstrip(b'\0').endswith(END_MARKS[file_format])


def annotation_faults(annotation: Annotation, size: Size | None, split: Split) -> Iterator[Finding]:
    """Yield what is wrong with an object in an image of ``size``; None is not known."""
    if annotation.box is None:
        return
    harmful = split.training and not annotation.ignored
    found = list(
        _box_faults(annotation.box, size, annotation.dropped, 'empty box' if harmful else 'annotation left out')
    )
    if not annotation.dropped and annotation.label in split.classes:
        kind, what = _mask_fault(annotation.segmentation, size, split.training)
        if kind in ('object without mask', 'broken mask of an object') and not split.needs_masks:
            kind = 'unread mask of an object' if annotation.segmentation else ''
        found += [(kind, what)] if kind else []
    yield from (Finding(kind, annotation.where, what) for kind, what in found)


def _box_faults(box: Box, size: Size | None, dropped: str, empty: str) -> Iterator[tuple[str, str]]:
    """Yield kind and text of what is wrong with a box; ``empty`` is the kind of a box without extent in the image."""
    x1, y1, x2, y2 = box
    what = f'{x1:g}, {y1:g} to {x2:g}, {y2:g}: {x2 - x1:g} wide, {y2 - y1:g} high'
    if not all(map(math.isfinite, box)):
        yield 'box that is not finite', what
    elif dropped:
        yield 'annotation left out', dropped
    elif x2 <= x1 or y2 <= y1:
        yield empty, what + (', its corners in the wrong order' if x2 < x1 or y2 < y1 else '')
    elif size is not None and (min(x2, size[0]) <= max(x1, 0) or min(y2, size[1]) <= max(y1, 0)):
        yield empty, f'{what}, outside the image of {size[0]}x{size[1]}'
    else:
        if size is not None and _leaves(array('d', box), size):
            yield 'box beyond the image', f'{what} in an image of {size[0]}x{size[1]}'
        if min(x2 - x1, y2 - y1) <= TINY:
            yield 'tiny box', what


def _leaves(points: 'array[float]', size: Size) -> bool:
    """Return whether one of the points x, y, x, y, ... is outside an image by more than the tolerance."""
    return min(points) < -TOLERANCE or max(points[::2]) > size[0] + TOLERANCE or max(points[1::2]) > size[1] + TOLERANCE


def _mask_fault(segmentation: Any, size: Size | None, training: bool) -> tuple[str, str]:
    """Return kind and text of what is wrong with polygons or run lengths; empty if they are sound."""
    broken, without = 'broken mask of an object', 'object without mask'
    if not segmentation:
        return without, 'no segmentation'
    if isinstance(segmentation, dict):
        fault = base.rle_fault(segmentation)
        stated = tuple(segmentation.get('size') or ())[::-1]
        if not fault and size is not None and stated != size:
            fault = f'run lengths for {stated[0]}x{stated[1]}, the image has {size[0]}x{size[1]}'
        return (broken, fault) if fault else ('', '')
    if not isinstance(segmentation, list):
        return broken, f'{segmentation!r:.60} is neither polygons nor run lengths'
    polygons = []
    for polygon in segmentation:
        numbers = base.polygon_numbers(polygon)
        if numbers is None:
            return broken, f'{polygon!r:.60} is not a list of finite numbers'
        polygons.append(numbers)
    short = [numbers for numbers in polygons if not base.is_polygon(numbers)]
    if short:
        is_noted = len(short) < len(polygons) or training
        return 'polygon left out' if is_noted else without, f'a polygon of {len(short[0])} numbers'
    for numbers in polygons:
        if size is not None and _leaves(numbers, size):
            x, y = numbers[::2], numbers[1::2]
            what = f'{min(x):g}, {min(y):g} to {max(x):g}, {max(y):g} in an image of {size[0]}x{size[1]}'
            return 'polygon beyond the image', what
    return '', ''


def _read_mask(
    split: Split, path: str, size: Size | None, findings: list[Finding], decode: bool
) -> Counter[int] | None:
    """Return the pixels of a mask by value; None where it is not decoded, or its values have no meaning."""
    found, meanings = None, split.mask_values
    with Image.open(regular_file(path)) as image:
        if decode or not _ends_well(path, image.format):
            image.load()
        if decode:
            found = value_counts(image if split.read_mask is None else Image.fromarray(split.read_mask(path)))
        channels = len(image.getbands())
    if size is not None and image.size != tuple(size):
        what = f'{image.size[0]}x{image.size[1]}, the image {size[0]}x{size[1]}'
        findings.append(Finding('wrong mask size', path, what))
    if meanings and channels > 1 and split.read_mask is None:
        findings.append(Finding('color mask', path, image.mode))
    elif meanings and found is not None:
        unknown = [f'{value} ({count:,} pixels)' for value, count in sorted(found.items()) if value not in meanings]
        if unknown:
            findings.append(Finding('mask value without class', path, join_some(unknown, limit=8)))
        elif not any(meanings.get(value) for value in found):
            findings.append(Finding('mask without class', path))
        elif split.read_mask is not None and len(found) == 1:
            findings.append(Finding('mask of one class', path, meanings[next(iter(found))]))
        return found
    return None
