"""Images into a network's size and results back: read and resized by OpenCV, as OpenMMLab's test pipelines do it.

Instance masks are run lengths in COCO's compressed form, which take little memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pycocotools import mask as coco_masks

from mmres2net.errors import UserError, reason_of

Array = npt.NDArray[Any]
Size = tuple[int, int]  # height and width
Mask = dict[str, Any]  # {'size': [height, width], 'counts': text}
PILLOW_FILTERS = ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming')
PILLOW_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK')


def read_image(source: str | Path | Image.Image | Array, *, apply_exif: bool = True) -> Array:
    """Return an image as (H, W, 3) uint8 RGB, with the pixels that ``mmcv.imread`` gives; a UserError if it has none.

    Args:
        source: A file, an image of Pillow's, or an array (H, W, 3) uint8 in RGB, which is returned as it is.
        apply_exif: Whether to turn the image by its EXIF orientation, as ``mmcv.imread`` does by default.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise UserError(f'an image array must be (H, W, 3) uint8 in RGB, not {source.shape} {source.dtype}')
        return source
    if isinstance(source, Image.Image) and source.mode not in PILLOW_MODES:
        raise UserError(f'an image of mode {source.mode} is not supported; convert it to 8-bit RGB or gray')
    try:
        if isinstance(source, Image.Image):
            return np.asarray((ImageOps.exif_transpose(source) if apply_exif else source).convert('RGB'))
        Image.open(source).load()  # OpenCV takes a file that is cut off, and fills the rest with grey
        flags = cv2.IMREAD_COLOR | (0 if apply_exif else cv2.IMREAD_IGNORE_ORIENTATION)
        pixels = cv2.imdecode(np.fromfile(source, np.uint8), flags)
    except Exception as error:  # damaged files raise errors of all types, struct.error among them
        raise UserError(f'{source} cannot be read as an image: {reason_of(error)}') from error
    if pixels is None:
        raise UserError(f'{source} is not an image that OpenCV reads; convert it to 8-bit RGB or gray')
    return np.ascontiguousarray(pixels[..., ::-1])


def sample_bilinear(plane: Array, size: Size, step: tuple[float, float], start: tuple[float, float]) -> Array:
    """Return ``plane`` (h, w) sampled on a grid of ``size`` with linear interpolation, as (H, W) float32.

    Values outside of ``plane`` are 0; within half a pixel of its border they are those of the border. Down and right,
    in pixels of ``plane``, ``step`` is the distance of the grid's points, and ``start`` the upper left corner of its
    first pixel. OpenCV rounds places to 1/32 of a pixel.
    """
    affine = (step[1], 0, start[1], 0, step[0], start[0])
    source = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(source.transform(size[::-1], Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def resize_logits(plane: Array, size: Size, *, align_corners: bool) -> Array:
    """Return ``plane`` (h, w) float32 resized to ``size`` without smoothing, as torch resizes bilinearly."""
    if not align_corners:
        return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
    step = [(old - 1) / max(new - 1, 1) for old, new in zip(plane.shape, size, strict=True)]
    return sample_bilinear(plane, size, (step[0], step[1]), (0.5 - step[0] / 2, 0.5 - step[1] / 2))


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
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)


def paste_mask(probability: Array, box: Array, size: Size, threshold: float) -> Mask:
    """Return which pixels of an image of ``size`` belong to an object, as ``FCNMaskHead`` of mmdet pastes masks.

    Those of a ``probability`` (h, w), on a grid over the ``box`` (left, top, right, bottom), of ``threshold`` or more.
    """
    left, top, right, bottom = (float(value) for value in box)
    mask = np.zeros(size, np.uint8, order='F')
    if right > left and bottom > top and np.isfinite(box).all():
        x0, x1 = max(int(np.floor(left)) - 1, 0), min(int(np.ceil(right)) + 1, size[1])
        y0, y1 = max(int(np.floor(top)) - 1, 0), min(int(np.ceil(bottom)) + 1, size[0])
        if x1 > x0 and y1 > y0:
            step = (probability.shape[0] / (bottom - top), probability.shape[1] / (right - left))
            # Beyond the box the probability falls to 0 within a cell, hence a border of zeros.
            start = ((y0 - top) * step[0] + 1, (x0 - left) * step[1] + 1)
            sampled = sample_bilinear(np.pad(probability, 1), (y1 - y0, x1 - x0), step, start)
            mask[y0:y1, x0:x1] = sampled >= threshold
    return encode_mask(mask)


def encode_mask(mask: Array) -> Mask:
    """Return a mask (H, W) of 0 and 1 as run lengths."""
    encoded = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}


def decode_mask(mask: Mask) -> Array:
    """Return a mask as (H, W) bool."""
    decoded: Array = coco_masks.decode(mask)
    return decoded.astype(bool)
