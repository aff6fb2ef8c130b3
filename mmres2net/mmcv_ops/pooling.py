"""Pooling of regions. A region is (index of the image, left, top, right, bottom), in pixels of the image.

Shapes: input (N, C, H, W), rois (K, 5), output (K, C, bins down, bins across).
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mmres2net.mmcv_ops.precision import computable, gradients

MAXIMUM = 0
# A sample there reads nothing.
OUTSIDE = -2.0


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, aligned_height: int,
    aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``output`` with the mean or the maximum of the samples in each bin: "Mask R-CNN", 2017, section 3.

    Args:
        argmax_y, argmax_x: (K, C, bins down, bins across): filled with the place of the maximum on the map.
        aligned_height, aligned_width: Bins down and across.
        spatial_scale: Pixels of the map by pixels of the image.
        sampling_ratio: Samples a bin in each direction; 0: as many as it has pixels, rounded up.
        pool_mode: 0: maximum; 1: mean.
        aligned: Move regions by half a pixel; without it they are at least one pixel wide and high.
    """
    features, regions, bins = computable(input), computable(rois), (aligned_height, aligned_width)
    if pool_mode != MAXIMUM:
        regions = regions.to(features.dtype)
        sizes = (spatial_scale, *bins, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, regions, *sizes))
        return
    for index, region in enumerate(regions):
        y, x = _sample_places(region, bins, spatial_scale, sampling_ratio, aligned)
        values = _sample(features[int(region[0])][None], *torch.broadcast_tensors(y, x))[0].flatten(3)
        if values.size(3):
            output[index], best = values.max(3)
            row, column = best // x.size(4), best % x.size(4)
            down, across = (torch.arange(n, device=input.device) for n in bins)
            argmax_y[index] = y[0, :, 0, :, 0][down[:, None], row]
            argmax_x[index] = x[0, 0, :, 0, :][across, column]
        else:
            output[index], argmax_y[index], argmax_x[index] = 0, OUTSIDE, OUTSIDE


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, aligned_height: int,
    aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``grad_input``, which is zero."""
    grad = computable(grad_output)
    if pool_mode != MAXIMUM:
        sizes = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(grad, rois.to(grad.dtype), *sizes))
        return
    for image, y, x, part in zip(rois[:, 0].long().tolist(), argmax_y, argmax_x, grad, strict=True):
        # Every channel has its own places. Sampling is linear: the values of the map do not matter.
        places = partial(_sample, y=computable(y), x=computable(x))
        (of_map,) = gradients(places, (torch.zeros_like(grad_input[image])[:, None],), part[:, None])
        grad_input[image] += of_map[:, 0].to(grad_input.dtype)


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int, pooled_width: int,
    spatial_scale: float,
) -> None:  # fmt: skip
    """Fill ``output`` with the maximum of the pixels that each bin touches: Girshick, "Fast R-CNN", 2015, section 2.1.

    Where the last pixel of a region ends is mmcv's choice, which differs from torchvision's.

    Args:
        argmax: (K, C, bins down, bins across): filled with the index of the pixel on its map, -1 for an empty bin.
    """
    features, regions = computable(input), computable(rois)
    left_top, right_bottom = regions[:, 1:3] * spatial_scale, (regions[:, 3:] + 1) * spatial_scale
    extent = right_bottom - left_top
    output.zero_()
    argmax.fill_(-1)
    for index in (extent > 0).all(1).nonzero()[:, 0].tolist():
        columns, rows = (
            _bin_limits(float(left_top[index, axis]), extent[index, axis] / bins, bins, features.size(3 - axis))
            for axis, bins in enumerate((pooled_width, pooled_height))
        )
        image = features[int(regions[index, 0])]
        for down, (top, bottom) in enumerate(rows):
            for across, (left, right) in enumerate(columns):
                if top < bottom and left < right:
                    value, place = image[:, top:bottom, left:right].flatten(1).max(1)
                    row, column = top + place // (right - left), left + place % (right - left)
                    output[index, :, down, across] = value.to(output.dtype)
                    argmax[index, :, down, across] = (row * features.size(3) + column).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int, pooled_width: int,
    spatial_scale: float,
) -> None:  # fmt: skip
    """Fill ``grad_input``, which is zero."""
    maps = grad_input.flatten(2)
    for image, place, grad in zip(
        rois[:, 0].long().tolist(), argmax.flatten(2).long(), grad_output.flatten(2), strict=True
    ):
        maps[image].scatter_add_(1, place.clamp_min(0), grad * (place >= 0))
    grad_input.copy_(maps.view_as(grad_input))


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, **sizes: float) -> None:
    """Fill ``output`` with the mean of the samples of bins that are moved: "Deformable Convolutional Networks", eq. 5.

    Args:
        offset: (K, 2, bins down, bins across): shift across and down, in parts of ``gamma`` times the region; or empty.
        sizes: pooled_height, pooled_width, spatial_scale and sampling_ratio as in RoIAlign, and gamma.
    """
    output.copy_(_deform_pool(computable(input), computable(offset), rois, sizes))


def deform_roi_pool_backward(
    grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor, grad_offset: Tensor,
    **sizes: float,
) -> None:  # fmt: skip
    """Fill ``grad_input`` and ``grad_offset``."""
    grads = gradients(partial(_deform_pool, rois=rois, sizes=sizes), (input, offset), grad_output)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[1])


def _deform_pool(input: Tensor, offset: Tensor, rois: Tensor, sizes: dict[str, float]) -> Tensor:
    bins, spatial_scale = (int(sizes['pooled_height']), int(sizes['pooled_width'])), sizes['spatial_scale']
    # No region depends on the inputs as well.
    pooled = [input.new_zeros(0, input.size(1), *bins) + 0 * (input.sum() + offset.sum())]
    for index, region in enumerate(computable(rois)):
        y, x = _sample_places(region, bins, spatial_scale, int(sizes['sampling_ratio']), True)
        if offset.numel():
            shift = sizes['gamma'] * offset[index, :, :, :, None, None]
            width, height = (region[3:] - region[1:3]) * spatial_scale
            y, x = y + shift[1] * height, x + shift[0] * width
        values = _sample(input[int(region[0])][None], *torch.broadcast_tensors(y, x)).flatten(4)
        pooled.append(values.mean(4) if values.size(4) else values.sum(4))
    return torch.cat(pooled)


def _bin_limits(start: float, step: Tensor, bins: int, pixels: int) -> list[tuple[int, int]]:
    """Return the first pixel of each bin along an axis, and the one behind its last."""
    edges = torch.arange(bins + 1, device=step.device).to(step.dtype) * step + start
    first, end = edges[:-1].floor().clamp(0, pixels), edges[1:].ceil().clamp(0, pixels)
    return [(int(low), int(high)) for low, high in zip(first.tolist(), end.tolist(), strict=True)]


def _sample_places(
    region: Tensor, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Return where a region (5,) is sampled: y (1, bins down, 1, samples, 1), x (1, 1, bins across, 1, samples)."""
    start, end = (corner * spatial_scale - (0.5 if aligned else 0) for corner in (region[1:3], region[3:]))
    steps = (end - start if aligned else (end - start).clamp_min(1)) / region.new_tensor(bins[::-1])
    places = []
    for low, step, count in ((start[1], steps[1], bins[0]), (start[0], steps[0], bins[1])):
        samples = sampling_ratio or max(math.ceil(step), 0)
        first, within = (torch.arange(n, device=region.device).to(region.dtype) for n in (count, samples))
        places.append(low + first[:, None] * step + (within + 0.5) * step / max(samples, 1))
    return places[0][None, :, None, :, None], places[1][None, None, :, None, :]


def _sample(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return bilinear samples (N, C, ...) of (N, C, H, W), 0 further than one pixel outside of the map.

    ``y`` and ``x`` (N, ...) are in pixels; 0 is the centre of the first.
    """
    height, width = maps.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    values = functional.grid_sample(maps, grid.flatten(1, -2)[:, None], padding_mode='border', align_corners=False)
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    return values.view(*maps.shape[:2], *y.shape[1:]) * inside[:, None]
