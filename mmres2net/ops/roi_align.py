"""RoIAlign on the CPU, as a product with a sparse matrix.

The CPU kernels of mmcv and torchvision visit bins, channels and samples one number at a time, on one core. Where the
channels of a pixel are adjacent in memory (channels_last), a bin is a weighted sum of rows of memory, which torch's
embedding bags compute with vector instructions and on all cores; the gradient is the sum over the transposed matrix.

The matrix: He et al., "Mask R-CNN", 2017, section 3: a bin is the mean of bilinear samples at regular positions in it.
The weight of a pixel is the product of a weight for its row and one for its column, which are computed separately.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from torchvision.ops import roi_align as torchvision_roi_align

Array = NDArray[Any]
# Weights per matrix: 32 MiB, and about five times that while they are computed.
MAX_ENTRIES = 2**22


class RoIAlign(nn.Module):
    """Replacement for ``mmcv.ops.RoIAlign`` with ``pool_mode='avg'``: the same numbers, several times faster on a CPU.

    On other devices, and in compilation, export and tracing, it calls torchvision's operator. Regions get no gradient,
    as in mmcv. A ValueError says that a size is below 1, or the sampling ratio below 0.

    Args:
        output_size: Number of bins (height, width); one number for both.
        spatial_scale: Feature pixels per image pixel.
        sampling_ratio: Samples per bin in each direction; 0: as many as the bin has pixels, rounded up.
        aligned: Pixel centers are at half coordinates; False is the older convention.
    """

    pool_mode = 'avg'  # attributes of mmcv's layer that its users read
    use_torchvision = False

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float = 1.0, sampling_ratio: int = 0, *,
        aligned: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
        if min(height, width) < 1 or sampling_ratio < 0:
            raise ValueError(f'output_size={output_size} must be at least 1, and sampling_ratio={sampling_ratio} 0')
        self.output_size = (height, width)
        self.spatial_scale, self.sampling_ratio, self.aligned = float(spatial_scale), sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool features (N, C, H, W) in K regions (image index, x1, y1, x2, y2) to (K, C, bin rows, bin columns).

        Computed in the features' type, or in single precision for half types. Fastest for channels_last features.
        Regions for which mmcv's kernel aborts or reads other memory are a ValueError.
        """
        if rois.ndim != 2 or rois.shape[1] != 5:
            raise ValueError(f'rois have the shape {tuple(rois.shape)}, but must have (K, 5): index, x1, y1, x2, y2')
        real = torch.promote_types(input.dtype, torch.float32)
        is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # which must not contain these weights
        if is_graph or type(input) not in (Tensor, nn.Parameter) or input.device.type != 'cpu':
            args = (self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)
            return torchvision_roi_align(input.to(real), rois.detach().to(real), *args).to(input.dtype)
        scaled = rois.detach().to(real, copy=True)
        scaled[:, 1:].mul_(self.spatial_scale).sub_(0.5 if self.aligned else 0.0)
        regions = scaled.numpy()
        _check(regions, len(input), self.aligned)
        images, channels, height, width = input.shape
        shape, options = (images, height, width), (self.output_size, self.sampling_ratio)
        pixels = input.to(real).permute(0, 2, 3, 1).reshape(-1, channels)
        parts = _portions(regions, shape, self.output_size)
        sums = [_WeightedSums.apply(pixels, bin_matrix(part, shape, *options, aligned=self.aligned)) for part in parts]
        pooled = sums[0] if len(sums) == 1 else torch.cat(sums)
        return pooled.view(len(rois), *self.output_size, channels).permute(0, 3, 1, 2).to(input.dtype).contiguous()


class _WeightedSums(torch.autograd.Function):
    """Product of a sparse matrix (bins, pixels) and a dense one (pixels, channels), with its gradient."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weights: sparse.csr_matrix) -> Tensor:
        ctx.weights = weights
        return _sums(weights, pixels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # A column of the matrix holds the bins that a pixel contributes to.
        return _sums(ctx.weights.tocsc(), grad.contiguous()), None


def _sums(weights: sparse.csr_matrix | sparse.csc_matrix, rows: Tensor) -> Tensor:
    if not len(rows):
        return rows.new_zeros(len(weights.indptr) - 1, rows.shape[1])
    indices, ends, parts = (torch.from_numpy(x) for x in (weights.indices, weights.indptr, weights.data))
    return embedding_bag(indices, rows, ends, mode='sum', per_sample_weights=parts, include_last_offset=True)


def _portions(regions: Array, shape: tuple[int, int, int], output_size: tuple[int, int]) -> list[Array]:
    """Split the regions so that the weights of each part fit the bound; a part has one region at least."""
    extent = np.clip(regions[:, 3:] - regions[:, 1:3], 1, shape[:0:-1])
    entries = np.prod(extent + 2 * np.array(output_size[::-1]), axis=1)  # at most, of each region
    part = np.cumsum(entries) // MAX_ENTRIES
    return np.split(regions, np.flatnonzero(np.diff(part)) + 1)


def _check(regions: Array, images: int, aligned: bool) -> None:
    if not np.isfinite(regions).all():
        raise ValueError('rois contain coordinates that are not finite (NaN or inf); did the training diverge?')
    if ((regions[:, 0] < 0) | (regions[:, 0] >= images)).any():
        raise ValueError(f'rois contain an image index outside 0..{images - 1}; the features have {images} images')
    if aligned and (regions[:, 3:] < regions[:, 1:3]).any():
        raise ValueError('rois contain x2 < x1 or y2 < y1, which aligned=True does not allow')


def bin_matrix(
    regions: Array, shape: tuple[int, int, int], output_size: tuple[int, int], sampling_ratio: int, *, aligned: bool
) -> sparse.csr_matrix:
    """Return the weights of all pixels in all bins: (K * bin rows * bin columns, images * height * width).

    Regions (K, 5) are in feature pixels, with the half-pixel shift applied; without ``aligned`` they are at least one
    pixel wide and high. ``shape`` is the number of images, height and width of the feature map.
    """
    images, height, width = shape
    down, across = output_size
    start, extent = regions[:, 1:3], regions[:, 3:] - regions[:, 1:3]
    if not aligned:
        extent = np.maximum(extent, 1)
    columns = axis_matrix(start[:, 0], extent[:, 0], across, sampling_ratio, width)
    rows = axis_matrix(start[:, 1], extent[:, 1], down, sampling_ratio, height)

    # Expand regions to bins, bins to the rows of pixels in them, and rows to pixels.
    bins = (len(regions), down, across)
    tall, row = (_of_bins(x, bins, (down, 1)) for x in (np.diff(rows.indptr), rows.indptr[:-1]))
    wide, column = (_of_bins(x, bins, (1, across)) for x in (np.diff(columns.indptr), columns.indptr[:-1]))
    row, wide_of_row = _runs(row, tall), np.repeat(wide, tall)
    image = np.repeat(regions[:, 0].astype(np.int32) * (height * width), down * across)
    first = rows.indices[row] * np.int32(width) + np.repeat(image, tall)
    column = _runs(np.repeat(column, tall), wide_of_row)
    pixels = columns.indices[column] + np.repeat(first, wide_of_row)
    weights = columns.data[column] * np.repeat(rows.data[row], wide_of_row)
    ends = np.concatenate(([0], np.cumsum(tall * wide))).astype(np.int32)
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


def _of_bins(values: Array, bins: tuple[int, int, int], size: tuple[int, int]) -> Array:
    """Repeat the values of one axis' bins for the bins of both axes."""
    return np.broadcast_to(values.reshape(-1, *size), bins).ravel()


def _runs(first: Array, count: Array) -> Array:
    """Return ``count`` consecutive numbers from each ``first``, concatenated."""
    ends = np.cumsum(count)
    numbers = np.repeat((first - (ends - count)).astype(np.int32), count)
    numbers += np.arange(numbers.size, dtype=numbers.dtype)
    return numbers
