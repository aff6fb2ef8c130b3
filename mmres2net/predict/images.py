"""Images into a network's size and results back: pixels as OpenCV reads them, resized as OpenMMLab's test pipelines do.

Instance masks are run lengths in COCO's compressed form, which take little memory and which pycocotools reads.

Only numpy and Pillow are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mmres2net.errors import UserError, reason_of

Array = npt.NDArray[Any]
Size = tuple[int, int]  # height and width
Mask = dict[str, Any]  # {'size': [height, width], 'counts': text}
PILLOW_FILTERS = ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming')


def read_image(source: str | Path | Image.Image | Array, *, apply_exif: bool = True) -> Array:
    """Return an image as (H, W, 3) uint8 RGB, with the pixels that ``mmcv.imread`` gives.

    16-bit images keep their high byte (16-bit color TIFF files may differ by one level), transparency is dropped, and
    CMYK and palette images are converted.

    Args:
        source: A file, an image of Pillow's, or an array (H, W, 3) uint8 in RGB, which is returned as it is.
        apply_exif: Whether to turn the image by its EXIF orientation, as ``mmcv.imread`` does by default.

    Raises:
        UserError: No such file, not an image, an image of a kind that OpenCV does not read (32-bit or Lab), or an array
            of another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise UserError(f'an image array must be (H, W, 3) uint8 in RGB, not {source.shape} {source.dtype}')
        return source
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        kind = image.format
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image) if apply_exif else image, kind)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    except Exception as error:  # damaged files raise errors of all types, struct.error among them
        raise UserError(f'{source} cannot be read as an image: {reason_of(error)}') from error


def _as_rgb(image: Image.Image, kind: str | None) -> Array:
    if image.mode in ('I', 'F', 'LAB', 'HSV'):
        raise UserError(f'images of mode {image.mode} are not read by OpenCV either; convert it to 8-bit RGB or gray')
    if image.mode.startswith('I;16'):
        pixels = (np.asarray(image) >> 8).astype(np.uint8)
    elif image.mode == 'CMYK':
        cmyk = np.asarray(image).astype(np.int32)
        ink, light = cmyk[..., :3], 255 - cmyk[..., 3:]
        pixels = ((255 - ink) * light // 255 if kind == 'TIFF' else light - (ink * light >> 8)).astype(np.uint8)
    elif image.mode == 'RGBA' and kind == 'TIFF':  # libtiff multiplies by the opacity
        rgba = np.asarray(image).astype(np.int32)
        pixels = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    elif image.mode == 'LA':
        pixels = np.asarray(image.getchannel(0))
    else:
        pixels = np.asarray(image.convert('RGBA' if image.mode in ('P', 'PA', 'RGBA') else 'RGB'))[..., :3]
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels)


def sample_bilinear(plane: Array, size: Size, step: tuple[float, float], start: tuple[float, float]) -> Array:
    """Return ``plane`` (h, w) sampled on a grid of ``size`` with linear interpolation, as (H, W) float32.

    This is the one resampling kernel of the package. Values outside of ``plane`` are 0; within half a pixel of its
    border they are those of the border. Down and right, in pixels of ``plane``, ``step`` is the distance of the grid's
    points, and ``start`` the upper left corner of its first pixel.
    """
    affine = (step[1], 0, start[1], 0, step[0], start[0])
    source = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(source.transform(size[::-1], Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def resize(array: Array, size: Size, *, align_corners: bool = False) -> Array:
    """Return ``array`` (h, w, C) resized to ``size`` without smoothing, as OpenCV and torch resize bilinearly.

    Values of uint8 arrays are rounded and stay uint8; others become float32.
    """
    height, width = array.shape[:2]
    if (height, width) == size:
        return array
    if align_corners:
        step = ((height - 1) / max(size[0] - 1, 1), (width - 1) / max(size[1] - 1, 1))
        start = (0.5 - step[0] / 2, 0.5 - step[1] / 2)
    else:
        step, start = (height / size[0], width / size[1]), (0.0, 0.0)
    planes = [sample_bilinear(array[:, :, channel], size, step, start) for channel in range(array.shape[2])]
    out = np.stack(planes, 2)
    return np.rint(out).astype(np.uint8) if array.dtype == np.uint8 else out


def resized_size(size: Size, transform: Mapping[str, Any]) -> Size:
    """Return the height and width that a ``Resize`` or ``ResizeEdge`` gives an image of ``size``.

    The ``scale`` of a ``Resize`` is width and height or, with ``keep_ratio``, the limits of the longer and the shorter
    side.
    """
    (height, width), scale = size, transform['scale']
    if transform['type'] == 'ResizeEdge':
        edge = transform['edge']
        by_width = edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height)
        return (int(scale * height / width), scale) if by_width else (scale, int(scale * width / height))
    if not transform['keep_ratio']:
        return scale[1], scale[0]
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def apply_transforms(image: Array, transforms: Sequence[Mapping[str, Any]]) -> Array:
    """Return ``image`` (H, W, 3) after the transforms of a test pipeline.

    These are ``Resize`` (scale, keep_ratio), ``ResizeEdge`` (scale, edge) and ``CenterCrop`` (crop_size) with the
    arguments that they have in OpenMMLab's configs, sizes as width and height. A UserError says that the image becomes
    less than a pixel high or wide.
    """
    for transform in transforms:
        height, width = image.shape[:2]
        if transform['type'] == 'CenterCrop':
            crop = min(transform['crop_size'][1], height), min(transform['crop_size'][0], width)
            top, left = round((height - crop[0]) / 2), round((width - crop[1]) / 2)
            image = image[top : top + crop[0], left : left + crop[1]]
            continue
        size = resized_size((height, width), transform)
        if min(size) < 1:
            raise UserError(f'an image of {height}x{width} is too narrow: it would become {size[0]}x{size[1]} pixels')
        if 'filter' in transform:  # of Pillow
            method = Image.Resampling[transform['filter'].upper()]
            image = np.asarray(Image.fromarray(image).resize(size[::-1], method))
        else:
            image = resize(image, size)
    return np.ascontiguousarray(image)


def pad_to(image: Array, size: Size, fill: tuple[int, int, int]) -> Array:
    """Return ``image`` (h, w, 3) in the upper left corner of an image of ``size`` filled with ``fill``."""
    out = np.empty((*size, 3), np.uint8)
    out[:] = fill
    out[: image.shape[0], : image.shape[1]] = image
    return out


def paste_mask(probability: Array, box: Array, size: Size, threshold: float) -> Mask:
    """Return which pixels of an image of ``size`` belong to an object, as ``FCNMaskHead`` of mmdet pastes masks.

    Those of a ``probability`` (h, w), on a grid over the ``box`` (left, top, right, bottom), of ``threshold`` or more.
    """
    left, top, right, bottom = (float(value) for value in box)
    x0 = x1 = y0 = y1 = 0
    if right > left and bottom > top and np.isfinite(box).all():
        x0, x1 = max(int(np.floor(left)) - 1, 0), min(int(np.ceil(right)) + 1, size[1])
        y0, y1 = max(int(np.floor(top)) - 1, 0), min(int(np.ceil(bottom)) + 1, size[0])
    if x1 <= x0 or y1 <= y0:
        return encode_mask(np.zeros((0, 0), bool), (0, 0), size)
    step = (probability.shape[0] / (bottom - top), probability.shape[1] / (right - left))
    # Beyond the box the probability falls to 0 within a cell, hence a border of zeros.
    start = ((y0 - top) * step[0] + 1, (x0 - left) * step[1] + 1)
    window = sample_bilinear(np.pad(probability, 1), (y1 - y0, x1 - x0), step, start) >= threshold
    return encode_mask(window, (y0, x0), size)


def encode_mask(window: Array, corner: tuple[int, int], size: Size) -> Mask:
    """Return the mask of an image of ``size``: ``window`` (h, w) bool from ``corner`` (top, left) on, else False."""
    height, width = size
    edges = np.diff(np.pad(window, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    columns, rows = np.nonzero(edges.T)
    places = (columns + corner[1]) * height + rows + corner[0]  # where runs begin and end, column by column
    joined = np.flatnonzero(places[1:-1:2] == places[2::2])  # a run that goes on at the top of the next column
    places = np.delete(places, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(np.concatenate([[0], places, [height * width]]))
    if len(counts) > 1 and not counts[-1]:
        counts = counts[:-1]
    return {'size': [height, width], 'counts': ''.join(_compressed(counts.tolist()))}


def _compressed(counts: list[int]) -> Iterator[str]:
    """Yield the characters of run lengths: five bits each, lowest first, of the difference to the last but one."""
    for index, count in enumerate(counts):
        value, more = count - (counts[index - 2] if index > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            yield chr((bits | 32 if more else bits) + 48)


def decode_mask(mask: Mask) -> Array:
    """Return a mask as (H, W) bool."""
    counts: list[int] = []
    value = shift = 0
    for character in mask['counts']:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    height, width = mask['size']
    values = np.arange(len(counts)) % 2 > 0
    return np.repeat(values, counts).reshape(width, height).T
