"""Pooling of regions. A region is (index of the image, left, top, right, bottom), in pixels of the image.

Shapes: input (N, C, H, W), rois (K, 5), output (K, C, bins down, bins across).
"""

import torch
from torch import Tensor

from mmres2net.mmcv_ops.common import computable, refuse


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, aligned_height: int,
    aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``output`` with the mean of the samples in each bin: "Mask R-CNN", 2017, section 3.

    ``aligned_height`` and ``aligned_width`` are the bins down and across. A ``pool_mode`` of 0, the maximum, is a
    UserError; only it uses ``argmax_y`` and ``argmax_x``.
    """
    if not pool_mode:
        refuse("roi_align with pool_mode='max'")
    features = computable(input)
    sizes = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
    output.copy_(torch.ops.torchvision.roi_align(features, rois.to(features.dtype), *sizes))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, aligned_height: int,
    aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Fill ``grad_input``."""
    grad = computable(grad_output)
    sizes = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(grad, rois.to(grad.dtype), *sizes))


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int, pooled_width: int,
    spatial_scale: float,
) -> None:  # fmt: skip
    """Fill ``output`` with the maximum of the pixels that each bin touches: Girshick, "Fast R-CNN", 2015, section 2.1.

    Where the last pixel of a region ends is mmcv's choice, which differs from torchvision's. ``argmax``, of the
    output's shape, is filled with the index of the pixel on its map, -1 for an empty bin.
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
    maps, places, grads = grad_input.flatten(2), argmax.flatten(2).long(), grad_output.flatten(2)
    for image, place, grad in zip(rois[:, 0].long().tolist(), places, grads, strict=True):
        maps[image].scatter_add_(1, place.clamp_min(0), grad * (place >= 0))
    grad_input.copy_(maps.view_as(grad_input))


def _bin_limits(start: float, step: Tensor, bins: int, pixels: int) -> list[tuple[int, int]]:
    """Return the first pixel of each bin along an axis, and the one behind its last."""
    edges = torch.arange(bins + 1, device=step.device).to(step.dtype) * step + start
    first, end = edges[:-1].floor().clamp(0, pixels), edges[1:].ceil().clamp(0, pixels)
    return [(int(low), int(high)) for low, high in zip(first.tolist(), end.tolist(), strict=True)]
