"""Images in and out of a network's size, in numpy: bilinear without smoothing, as OpenCV and torch resize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.errors import UserError

Array = npt.NDArray[Any]


def read_image(source: str | Path | Image.Image | Array) -> Array:
    """Return an image as (H, W, 3) uint8, RGB.

    Args:
        source: A file, an image of Pillow's, or an array that is already so.

    Raises:
        UserError: No such file, no image, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise UserError(f'an image is (H, W, 3) uint8 in RGB, not {source.shape} {source.dtype}')
        return source
    try:
        # Orientation by EXIF is not applied in training either: it would not fit the annotations.
        image = source if isinstance(source, Image.Image) else Image.open(source)
        return np.asarray(image.convert('RGB'))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f'{source} cannot be read as an image: {error}') from error


def fitted(size: tuple[int, int], scale: tuple[int, int], keep_ratio: bool) -> tuple[int, int]:
    """Return the height and width to which an image of ``size`` (height, width) is resized for testing.

    Args:
        size: Height and width of the image.
        scale: Width and height; with ``keep_ratio`` the longer and the shorter side at most.
        keep_ratio: Whether the sides keep their ratio.
    """
    if not keep_ratio:
        return scale[1], scale[0]
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def resize(array: Array, size: tuple[int, int], *, align_corners: bool = False) -> Array:
    """Return ``array`` (H, W, C) resized to ``size`` (height, width); uint8 stays uint8, the rest becomes float32."""
    if array.shape[:2] == size:
        return array
    out = array.astype(np.float32)
    for axis in (0, 1):
        low, high, weight = _taps(array.shape[axis], size[axis], align_corners)
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        out = out.take(low, axis) * (1 - weight) + out.take(high, axis) * weight
    return np.clip(np.rint(out), 0, 255).astype(np.uint8) if array.dtype == np.uint8 else out


def _taps(old: int, new: int, align_corners: bool) -> tuple[Array, Array, Array]:
    """Return the two neighbours of each new pixel along an axis, and the weight of the second."""
    steps = np.arange(new, dtype=np.float32)
    if align_corners:
        place = steps * np.float32((old - 1) / max(new - 1, 1))
    else:
        place = (steps + 0.5) * np.float32(old / new) - 0.5
    place = np.clip(place, 0, old - 1)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32)


def framed(image: Array, size: tuple[int, int], fill: tuple[int, int, int]) -> Array:
    """Return ``image`` (h, w, 3) in the upper left corner of a frame of ``size`` that is filled with ``fill``."""
    frame = np.empty((*size, 3), np.uint8)
    frame[:] = fill
    frame[: image.shape[0], : image.shape[1]] = image
    return frame


def paste_masks(masks: Array, boxes: Array, size: tuple[int, int], threshold: float) -> Array:
    """Return which pixels belong to each object.

    Args:
        masks: Probabilities on a grid over each box, (n, h, w).
        boxes: (n, 4) in pixels of the image.
        size: Height and width of the image.
        threshold: From which probability on a pixel belongs to the object.

    Returns:
        (n, H, W) bool.
    """
    pasted = np.zeros((len(masks), *size), bool)
    for out, mask, (left, top, right, bottom) in zip(pasted, masks, boxes, strict=True):
        x0, x1 = max(int(np.floor(left)) - 1, 0), min(int(np.ceil(right)) + 1, size[1])
        y0, y1 = max(int(np.floor(top)) - 1, 0), min(int(np.ceil(bottom)) + 1, size[0])
        if x1 <= x0 or y1 <= y0 or right <= left or bottom <= top:
            continue
        rows = _hats(np.arange(y0, y1), top, bottom, mask.shape[0])
        columns = _hats(np.arange(x0, x1), left, right, mask.shape[1])
        out[y0:y1, x0:x1] = rows @ mask @ columns.T >= threshold
    return pasted


def _hats(pixels: Array, start: float, end: float, cells: int) -> Array:
    """Return how much each of ``cells`` cells between ``start`` and ``end`` weighs at each pixel, (pixels, cells)."""
    place = (pixels + 0.5 - start) / (end - start) * cells - 0.5
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1).astype(np.float32)
