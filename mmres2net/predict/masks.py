"""Instance masks as run lengths in COCO's compressed form, which take little memory and which pycocotools reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mmres2net.predict.images import Size, sample_bilinear

Array = npt.NDArray[Any]
Mask = dict[str, Any]  # {'size': [height, width], 'counts': text}


def paste_mask(probability: Array, box: Array, size: Size, threshold: float) -> Mask:
    """Return which pixels of an image belong to an object, as ``FCNMaskHead`` of mmdet pastes masks.

    Args:
        probability: On a grid over the box, (h, w).
        box: Left, top, right, bottom in pixels of the image.
        size: Height and width of the image.
        threshold: The probability from which on a pixel belongs to the object.
    """
    left, top, right, bottom = (float(value) for value in box)
    if not (right > left and bottom > top and np.isfinite(box).all()):
        return encode_mask(np.zeros((0, 0), bool), (0, 0), size)
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
