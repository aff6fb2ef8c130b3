"""The checks of one sample in an audit: its image file, the geometry of its annotations, its mask."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmres2net.data.audit.report import Finding
from mmres2net.data.audit.split import Sample, Size, Split, Thing
from mmres2net.errors import UserError

TOLERANCE = 1.0  # pixels: annotations are rounded, and VOC's count from 1
TINY = 1.0  # pixels
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
UNUSUAL = {
    **dict.fromkeys(('1', 'L'), 'grey image'),
    **dict.fromkeys(('LA', 'La', 'RGBA', 'RGBa', 'PA'), 'image with alpha'),
    **dict.fromkeys(('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N'), 'deep image'),
    'P': 'palette image',
    'CMYK': 'CMYK image',
    'YCCK': 'CMYK image',
}


@dataclass
class Checked:
    """What the check of one sample found; ``digest`` is that of a readable image file, else None."""

    findings: list[Finding] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    values: Counter[int] = field(default_factory=Counter)  # of the mask: pixels by value
    digest: bytes | None = None


def check_sample(split: Split, sample: Sample) -> Checked:
    """Read a sample whole, decode its image and mask, and check its annotations against them."""
    size, things, findings = split.things(sample)
    checked = Checked(findings, things)
    seen = _check_file(sample.image, size, checked) if sample.pixels is None else sample.pixels.shape[1::-1]
    fault = split.image_fault(sample.image) if split.image_fault is not None and checked.digest is not None else ''
    findings += [Finding('unusable image', sample.image, fault.removeprefix(f'{sample.image}: '))] if fault else []
    for thing in things:
        findings += thing_faults(thing, size or seen)
    if sample.mask:
        _check_mask(split, sample.mask, seen or size, checked)
    elif split.unit != 'images' and not things and not findings:
        findings.append(Finding('image without annotations', sample.image))
    return checked


def _check_file(path: str, size: Size | None, checked: Checked) -> Size | None:
    """Check an image file and return the (width, height) that a loader which honours EXIF gives it."""
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            orientation = image.getexif().get(ORIENTATION, 1)
            stored: Size = image.size
            kind = UNUSUAL.get(image.mode)
    except FileNotFoundError:
        checked.findings.append(Finding('missing image', path))
        return None
    except Exception as error:  # damaged files raise many kinds of error, all of which mean the same here
        checked.findings.append(Finding('unreadable image', path, _why(error, path)))
        return None
    checked.digest = hashlib.blake2b(data, digest_size=16).digest()
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


def _why(error: Exception, path: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        length = Path(path).stat().st_size
        return f'none of the known image formats ({length:,} bytes)' if length else 'an empty file'
    return str(error) or type(error).__name__


def thing_faults(thing: Thing, size: Size | None) -> Iterator[Finding]:
    """Yield what is wrong with a box and its mask in an image of ``size``, (width, height); None is not known."""
    if thing.box is not None:
        yield from _box_faults(thing.where, thing.box, size)
    if isinstance(thing.segmentation, dict):
        yield from _rle_faults(thing.where, thing.segmentation, size)
    elif thing.segmentation is not None:
        yield from _polygon_faults(thing.where, thing.segmentation, size)


def _box_faults(where: str, box: tuple[float, float, float, float], size: Size | None) -> Iterator[Finding]:
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    corners = f'{x1:g}, {y1:g} to {x2:g}, {y2:g}'
    if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
        yield Finding('empty box', where, f'{corners}: {width:g} wide, {height:g} high')
        return
    if size is not None and _leaves(np.array(box).reshape(2, 2), size):
        yield Finding('box outside the image', where, f'{corners} in an image of {size[0]}x{size[1]}')
    if min(width, height) <= TINY:
        yield Finding('tiny box', where, f'{corners}: {width:g} wide, {height:g} high')


def _leaves(points: np.ndarray, size: Size) -> bool:
    """Whether one of the points (N, 2) lies outside an image of (width, height) by more than the tolerance."""
    return bool((points < -TOLERANCE).any() or (points > np.array(size) + TOLERANCE).any())


def _polygon_faults(where: str, polygons: Any, size: Size | None) -> Iterator[Finding]:
    for polygon in polygons if isinstance(polygons, list) else [polygons]:
        points = sound_polygon(polygon)
        if points is None:
            yield Finding(
                'broken polygon', where, f'{len(polygon)} values' if isinstance(polygon, list) else str(polygon)
            )
        elif size is not None and _leaves(points, size):
            low, high = points.min(0), points.max(0)
            what = f'{low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g} in an image of {size[0]}x{size[1]}'
            yield Finding('polygon outside the image', where, what)


def sound_polygon(polygon: Any) -> np.ndarray | None:
    """Return the points (N, 2), at least three, of COCO's x, y, x, y, ...; None where it is no such list."""
    try:
        values = np.array(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.ndim != 1 or values.size < 6 or values.size % 2 or not np.isfinite(values).all():
        return None
    return values.reshape(-1, 2)


def _rle_faults(where: str, rle: dict[str, Any], size: Size | None) -> Iterator[Finding]:
    try:
        height, width = (int(value) for value in rle['size'])
        if size is not None and (width, height) != tuple(size):
            what = f'{width}x{height}, the image {size[0]}x{size[1]}'
            yield Finding('wrong run-length size', where, what)
        decode_rle(rle)
    except Exception as error:  # whatever the decoder raises means that there is no mask
        yield Finding('broken run lengths', where, str(error) or type(error).__name__)


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Return the bool mask (H, W) of COCO's run lengths, compressed or not.

    Raises:
        ValueError: They do not fill the size they state.
    """
    from pycocotools import mask as coco_mask  # beside mmdet, which alone has data sets with run lengths

    height, width = rle['size']
    if isinstance(rle['counts'], list):
        total = sum(rle['counts'])
        if total != height * width or min(rle['counts'], default=0) < 0:
            raise ValueError(f'runs of {total:,} pixels in all for {width}x{height} = {height * width:,}')
        rle = coco_mask.frPyObjects(rle, height, width)
    return coco_mask.decode(rle).astype(bool)


def _check_mask(split: Split, path: str, size: Size | None, checked: Checked) -> None:
    values = split.mask_values
    try:
        with Image.open(path) as image:
            image.load()
            found = value_counts(image if split.read_mask is None else Image.fromarray(split.read_mask(path)))
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
    if not values:  # nothing is known of what they mean
        return
    if found is None:
        checked.findings.append(Finding('colour mask', path, f'{image.mode}'))
        return
    checked.values = found
    strange = {value: count for value, count in sorted(found.items()) if value not in values}
    if strange:
        listed = ', '.join(f'{value} ({count:,} pixels)' for value, count in list(strange.items())[:8])
        more = f' and {len(strange) - 8} values more' if len(strange) > 8 else ''
        checked.findings.append(Finding('mask value without class', path, listed + more))
    elif not any(values.get(value) for value in found):
        checked.findings.append(Finding('mask without class', path))
    elif split.read_mask is not None and len(found) == 1:
        checked.findings.append(Finding('mask of one class', path, values[next(iter(found))]))


def value_counts(image: Image.Image) -> Counter[int] | None:
    """Return how many pixels of a mask have which value, as mmseg reads it; None where it has several channels."""
    if image.mode in ('L', 'P'):
        counts = image.histogram()
        return Counter({value: count for value, count in enumerate(counts) if count})
    if len(image.getbands()) > 1:
        return None
    values, numbers = np.unique(np.asarray(image), return_counts=True)  # also of bool, which is 0 and 1
    return Counter({int(value): int(number) for value, number in zip(values, numbers, strict=True)})
