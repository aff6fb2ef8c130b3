"""RoIAlign as a sparse matrix: which pixels each bin of a region consists of, and with which weights.

He et al., "Mask R-CNN", 2017, section 3: a bin is the mean of bilinear samples at regular positions in it. That is a
weighted sum of pixels, and the weight of a pixel is the product of a weight for its row and one for its column. So rows
and columns are computed separately, which takes little time, and samples that meet on a pixel become one entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]


def bin_matrix(
    regions: Array, shape: tuple[int, int, int], output_size: tuple[int, int], sampling_ratio: int, *, aligned: bool
) -> sparse.csr_matrix:
    """Return the weights of all pixels in all bins.

    Args:
        regions: (K, 5): image index, left, top, right, bottom in feature pixels, with the half-pixel shift applied.
        shape: Number of images, height and width of the feature map.
        output_size, sampling_ratio: As in :class:`mmres2net.ops.RoIAlign`.
        aligned: False makes regions at least one pixel wide and high, as the first implementations did.

    Returns:
        (K * bin rows * bin columns, images * height * width).
    """
    images, height, width = shape
    down, across = output_size
    start, extent = regions[:, 1:3], regions[:, 3:] - regions[:, 1:3]
    if not aligned:
        extent = np.maximum(extent, 1)
    columns = axis_matrix(start[:, 0], extent[:, 0], across, sampling_ratio, width)
    rows = axis_matrix(start[:, 1], extent[:, 1], down, sampling_ratio, height)
    index = np.int32 if images * height * width < 2**31 else np.int64

    # Expand regions to bins, bins to the rows of pixels in them, and rows to pixels.
    bins = (len(regions), down, across)
    tall, row = (_of_bins(x, bins, (down, 1)) for x in (np.diff(rows.indptr), rows.indptr[:-1]))
    wide, column = (_of_bins(x, bins, (1, across)) for x in (np.diff(columns.indptr), columns.indptr[:-1]))
    row, wide_of_row = _runs(row, tall), np.repeat(wide, tall)
    image = np.repeat(regions[:, 0].astype(index) * (height * width), down * across)
    first = rows.indices[row].astype(index) * width + np.repeat(image, tall)
    column = _runs(np.repeat(column, tall), wide_of_row)
    pixels = columns.indices[column] + np.repeat(first, wide_of_row)
    weights = columns.data[column] * np.repeat(rows.data[row], wide_of_row)
    ends = np.concatenate(([0], np.cumsum(tall * wide))).astype(index)
    return sparse.csr_matrix((weights, pixels, ends), shape=(tall.size, images * height * width))


def axis_matrix(start: Array, extent: Array, bins: int, sampling_ratio: int, pixels: int) -> sparse.csr_matrix:
    """Return the weights of the pixels of one axis in the bins along it.

    Samples up to one pixel outside have the border's value and samples further outside are zero, as in every
    implementation. Both count in the mean. ``start`` and ``extent`` are those of each region (K,), the result is
    (K * bins, pixels).
    """
    real = start.dtype.type
    step = extent / real(bins)
    # In single precision for every type, as in mmcv: 2.0000000001 pixels are two samples.
    samples = np.full(len(start), sampling_ratio) if sampling_ratio else np.ceil(step.astype(np.float32)).astype(int)
    count = np.repeat(samples, bins)
    owner = np.repeat(np.arange(count.size), count)
    region, place = owner // bins, (owner % bins).astype(real)
    sample = _runs(np.zeros_like(count), count).astype(real)
    divisor = samples.astype(real)[region]
    at = start[region] + place * step[region] + (sample + real(0.5)) * step[region] / divisor

    inside = (at >= -1) & (at <= pixels)
    at, owner, divisor = np.maximum(at[inside], 0), owner[inside], divisor[inside]
    low = np.minimum(at.astype(np.int64), pixels - 1)
    part = np.where(low == pixels - 1, real(0), at - low.astype(real))
    entries = np.concatenate(((1 - part) / divisor, part / divisor))
    places = np.concatenate((owner, owner)), np.concatenate((low, np.minimum(low + 1, pixels - 1)))
    matrix = sparse.coo_matrix((entries, places), shape=(count.size, pixels)).tocsr()  # adds the entries of one pixel
    matrix.eliminate_zeros()
    return matrix


def max_entries(regions: Array, shape: tuple[int, int, int], output_size: tuple[int, int]) -> Array:
    """Return an upper bound of the number of entries of each region: (K,)."""
    extent = np.clip(regions[:, 3:] - regions[:, 1:3], 1, shape[:0:-1])
    return np.prod(extent + 2 * np.array(output_size[::-1]), axis=1)


def _of_bins(values: Array, bins: tuple[int, int, int], size: tuple[int, int]) -> Array:
    """Repeat the values of one axis' bins for the bins of both axes."""
    return np.broadcast_to(values.reshape(-1, *size), bins).ravel()


def _runs(first: Array, count: Array) -> Array:
    """Return ``count`` consecutive numbers from each ``first``, concatenated."""
    ends = np.cumsum(count)
    index = np.int32 if not ends.size or ends[-1] < 2**31 else np.int64
    numbers = np.repeat((first - (ends - count)).astype(index), count)
    numbers += np.arange(numbers.size, dtype=numbers.dtype)
    return numbers
