"""The checks of one sample: its image file, its annotations against the image, its mask."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmres2net.data.formats import base
from mmres2net.data.formats.base import Annotation, Box, Finding, Size, Split, regular_file
from mmres2net.errors import UserError
from mmres2net.text import join_some

TOLERANCE = 1.0  # pixels: annotations are rounded, and VOC's count from 1
# What OpenCV, the image loader of mmcv, reads of what Pillow reads.
LOADABLE = {'JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000', 'AVIF', 'SUN'}
END_MARKS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


@dataclass
class Checked:
    """What the check of one sample found."""

    image: str
    findings: list[Finding]
    annotations: list[Annotation]
    size: Size | None  # as a loader sees the image
    values: Counter[int] | None = None  # of the mask: pixels by value
    digest: bytes | None = None  # of a readable image file; empty where it was not read to its end


def check_sample(split: Split, step: int, number: int) -> Checked:
    """Check image, annotations and mask of a sample; all files are decoded in each ``step``-th, else read in part."""
    sample, decode = split.samples[number], number % step == 0
    size, annotations, findings = split.parse(sample)
    checked = Checked(sample.image, findings, annotations, size)
    if sample.pixels is not None:
        checked.size = sample.pixels.shape[1::-1]
    else:
        with _as_findings(findings, 'image', sample.image):
            checked.size, checked.digest = _read_image(split, sample.image, size, findings, decode)
    for annotation in annotations:
        findings += annotation_faults(annotation, checked.size, split)
    if sample.mask:
        with _as_findings(findings, 'mask', sample.mask):
            checked.values = _read_mask(split, sample.mask, checked.size, findings, decode)
    elif split.unit == 'objects' and not annotations and not findings:
        findings.append(Finding('image without annotations', sample.image))
    return checked


@contextmanager
def _as_findings(findings: list[Finding], what: str, path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        findings.append(Finding(f'missing {what}', path))
    except UserError as error:
        findings.append(Finding(f'unusable {what}', path, str(error).removeprefix(f'{path}: ')))
    except Exception as error:  # damaged files raise many kinds of error, all of which mean the same here
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f'none of the known image formats ({Path(path).stat().st_size:,} bytes)'
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
        orientation = image.getexif().get(base.ORIENTATION, 1) if has_tag else 1
        stored: Size = image.size
    seen = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if size is not None and size != seen:
        turned = f', turned by EXIF orientation {orientation}' if seen != stored else ''
        what = f'{seen[0]}x{seen[1]} pixels{turned}, but annotated as {size[0]}x{size[1]}'
        findings.append(Finding('wrong image size', path, what))
    elif orientation in range(2, 9):
        findings.append(Finding('EXIF orientation', path, str(orientation)))
    return seen, digest


def _ends_well(path: str, file_format: str | None) -> bool:
    if file_format not in END_MARKS:
        return True
    with open(path, 'rb') as file:
        file.seek(max(Path(path).stat().st_size - 16, 0))
        return file.read().rstrip(b'\0').endswith(END_MARKS[file_format])


def annotation_faults(annotation: Annotation, size: Size | None, split: Split) -> list[Finding]:
    """Return what is wrong with an object in an image of ``size``; None is not known."""
    if annotation.box is None:
        return []
    empty = 'empty box' if split.training and not annotation.ignored else 'annotation left out'
    found = [_box_fault(annotation.box, size, annotation.dropped, empty)]
    if split.needs_masks and not annotation.dropped and annotation.label in split.classes:
        found.append(_mask_fault(annotation.segmentation, size, split.training))
    return [Finding(kind, annotation.where, what) for kind, what in found if kind]


def _box_fault(box: Box, size: Size | None, dropped: str, empty: str) -> tuple[str, str]:
    """Return kind and text of what is wrong with a box; ``empty`` is the kind of a box without extent in the image."""
    (x1, y1, x2, y2), what = box, base.box_text(box)
    if not all(map(math.isfinite, box)):
        return 'box that is not finite', what
    if dropped:
        return 'annotation left out', dropped
    if x2 <= x1 or y2 <= y1:
        return empty, what + (', its corners in the wrong order' if x2 < x1 or y2 < y1 else '')
    if size is not None and base.is_outside(box, size):
        return empty, f'{what}, outside the image of {size[0]}x{size[1]}'
    if size is not None and max(-x1, -y1, x2 - size[0], y2 - size[1]) > TOLERANCE:
        return 'box beyond the image', f'{what} in an image of {size[0]}x{size[1]}'
    return '', ''


def _mask_fault(segmentation: Any, size: Size | None, training: bool) -> tuple[str, str]:
    broken, without = 'broken mask of an object', 'object without mask'
    if not segmentation:
        return without, 'no segmentation'
    if isinstance(segmentation, dict):
        fault = base.rle_fault(segmentation)
        stated = tuple(segmentation.get('size') or ())[::-1]
        if not fault and size is not None and stated != size:
            fault = f'run lengths for {stated[0]}x{stated[1]}, the image has {size[0]}x{size[1]}'
        return (broken, fault) if fault else ('', '')
    polygons = [base.polygon_numbers(one) for one in segmentation] if isinstance(segmentation, list) else [None]
    if None in polygons:
        return broken, f'{segmentation!r:.60} is neither polygons of finite numbers nor run lengths'
    short = [numbers for numbers in polygons if numbers is not None and not base.is_polygon(numbers)]
    is_noted = len(short) < len(polygons) or training
    return ('polygon left out' if is_noted else without, f'a polygon of {len(short[0])} numbers') if short else ('', '')


def _read_mask(
    split: Split, path: str, size: Size | None, findings: list[Finding], decode: bool
) -> Counter[int] | None:
    found, meanings = None, split.mask_values
    with Image.open(regular_file(path)) as image:
        if decode or not _ends_well(path, image.format):
            image.load()
        if decode:
            labels = np.asarray(image) if split.read_mask is None else split.read_mask(path)
            found = Counter({v: count for v, count in enumerate(np.bincount(labels.ravel()).tolist()) if count})
        channels = len(image.getbands())
    if size is not None and image.size != tuple(size):
        what = f'{image.size[0]}x{image.size[1]}, the image {size[0]}x{size[1]}'
        findings.append(Finding('wrong mask size', path, what))
    if meanings and channels > 1 and split.read_mask is None:
        raise UserError(f'colors ({image.mode}); a mask has to hold class numbers in one channel')
    unknown = [f'{value} ({count:,} pixels)' for value, count in sorted((found or {}).items()) if value not in meanings]
    if meanings and unknown:
        findings.append(Finding('mask value without class', path, join_some(unknown, limit=8)))
    return found if meanings else None
