"""RoIAlign on the CPU, as a product with a sparse matrix.

The CPU kernels of mmcv and torchvision go through bins, channels and samples one number at a time, on one core. Where
the channels of a pixel lie side by side (channels_last), a bin is a weighted sum of rows of memory, which torch's
embedding bags do with vector instructions and on all cores; the gradient is the same sum over the transposed matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from mmres2net.ops.bins import Array, bin_matrix, entries_of

# At most so many weights at a time: 32 MiB, and some five times that while they are worked out.
MOST_ENTRIES = 2**22


class RoIAlign(nn.Module):
    """In the place of ``mmcv.ops.RoIAlign`` with ``pool_mode='avg'``: the same numbers, several times faster on a CPU.

    On other devices it calls mmcv's operator. Regions get no gradient, as there.

    Args:
        output_size: Bins down and across; one number for both.
        spatial_scale: Feature pixels an image pixel.
        sampling_ratio: Samples a bin in each direction; 0: as many as it has pixels, rounded up.
        aligned: Pixels have their centres at half coordinates; False is the older convention.

    Raises:
        ValueError: A size is below 1, or the sampling ratio below 0.
    """

    pool_mode = 'avg'  # what a reader of mmcv's layer may ask for
    use_torchvision = False

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        *,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
        if min(height, width) < 1 or sampling_ratio < 0:
            raise ValueError(
                f'RoIAlign: output_size={output_size}, sampling_ratio={sampling_ratio}: there must be a bin at least, '
                'and 0 samples (as many as pixels) or more'
            )
        self.output_size = (height, width)
        self.spatial_scale, self.sampling_ratio, self.aligned = float(spatial_scale), sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool (N, C, H, W) features of K regions (index, x1, y1, x2, y2) into (K, C, bins down, bins across)."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f'output_size={self.output_size}, spatial_scale={self.spatial_scale}, '
            f'sampling_ratio={self.sampling_ratio}, aligned={self.aligned}'
        )


@torch.compiler.disable
def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Pool each region of the features into bins.

    Fastest where the features are channels_last; others are copied. Weights are worked out in the features' type, in
    single precision for half types.

    Args:
        features: (N, C, H, W).
        rois: (K, 5): index of the image, x1, y1, x2, y2 in image pixels.
        output_size, spatial_scale, sampling_ratio, aligned: As in :class:`RoIAlign`.

    Returns:
        (K, C, bins down, bins across), channels_last on a CPU.

    Raises:
        ValueError: The regions have another shape, an image that is not there, a coordinate that is not finite or,
            with ``aligned``, right before left. mmcv's kernel aborts or reads other memory.
    """
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f'rois of shape {tuple(rois.shape)}: (K, 5) is wanted, (index, x1, y1, x2, y2) each')
    if features.device.type != 'cpu' or torch.jit.is_tracing():  # a trace would keep these regions' weights
        from mmcv.ops import roi_align as host_roi_align

        return host_roi_align(features, rois, output_size, spatial_scale, sampling_ratio, 'avg', aligned)
    real = torch.promote_types(features.dtype, torch.float32)
    regions = rois.detach().to(real, copy=True)
    regions[:, 1:].mul_(spatial_scale).sub_(0.5 if aligned else 0.0)
    _check(regions.numpy(), len(features), aligned)
    images, channels, height, width = features.shape
    pixels = features.to(real).permute(0, 2, 3, 1).reshape(-1, channels)
    bins = [
        _WeightedSums.apply(
            pixels, bin_matrix(part, (images, height, width), output_size, sampling_ratio, aligned=aligned)
        )
        for part in _portions(regions.numpy(), (images, height, width), output_size)
    ]
    pooled = bins[0] if len(bins) == 1 else torch.cat(bins)
    return pooled.view(len(rois), *output_size, channels).permute(0, 3, 1, 2).to(features.dtype)


class _WeightedSums(torch.autograd.Function):
    """The product of a sparse matrix (bins, pixels) and a dense one (pixels, channels), with its gradient."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weights: sparse.csr_matrix) -> Tensor:
        ctx.weights = weights
        return _sums(weights, pixels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # A column of the matrix has the bins that a pixel went into.
        return _sums(ctx.weights.tocsc(), grad.contiguous()), None


def _sums(weights: sparse.csr_matrix | sparse.csc_matrix, rows: Tensor) -> Tensor:
    if not len(rows):
        return rows.new_zeros(len(weights.indptr) - 1, rows.shape[1])
    indices, ends, parts = (torch.from_numpy(x) for x in (weights.indices, weights.indptr, weights.data))
    return embedding_bag(indices, rows, ends, mode='sum', per_sample_weights=parts, include_last_offset=True)


def _portions(regions: Array, shape: tuple[int, int, int], output_size: tuple[int, int]) -> list[Array]:
    """Split the regions so that the weights of each part fit the bound, one region being the least."""
    part = np.cumsum(entries_of(regions, shape, output_size)) // MOST_ENTRIES
    return np.split(regions, np.flatnonzero(np.diff(part)) + 1)


def _check(regions: Array, images: int, aligned: bool) -> None:
    if not np.isfinite(regions).all():
        raise ValueError('rois have coordinates that are not finite: did the training diverge?')
    if ((regions[:, 0] < 0) | (regions[:, 0] >= images)).any():
        raise ValueError(f'rois name an image that is not among the {images} of the features')
    if aligned and (regions[:, 3:] < regions[:, 1:3]).any():
        raise ValueError('rois have right before left or bottom before top, which aligned=True does not allow')
