"""Deformable attention over several levels, and the masks of point-wise spatial attention."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mmres2net.mmcv_ops.precision import computable, gradients


def ms_deform_attn_forward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor, sampling_locations: Tensor,
    attention_weights: Tensor, im2col_step: int,
) -> Tensor:  # fmt: skip
    """Return the attended values (N, queries, heads * channels): Zhu et al., "Deformable DETR", 2020, equation 3.

    Args:
        value: (N, keys, heads, channels of a head).
        value_spatial_shapes: (levels, 2): height and width; ``value_level_start_index`` follows from them.
        sampling_locations: (N, queries, heads, levels, points, 2): x and y, from 0 to 1.
        attention_weights: (N, queries, heads, levels, points).
        im2col_step: Concerns mmcv's own implementation.
    """
    function = partial(_attend, shapes=value_spatial_shapes)
    tensors = (computable(tensor) for tensor in (value, sampling_locations, attention_weights))
    return function(*tensors).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor, sampling_locations: Tensor,
    attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor, grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor, im2col_step: int,
) -> None:  # fmt: skip
    """Fill the gradients of values, sampling locations and attention weights."""
    function = partial(_attend, shapes=value_spatial_shapes)
    grads = gradients(function, (value, sampling_locations, attention_weights), grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, **sizes: int) -> None:
    """Turn masks around every pixel into masks over the map: Zhao et al., "PSANet", 2018, section 3.2.

    Args:
        input: (N, h_mask * w_mask, H, W): at each pixel, the weights of the window that is centred on it.
        output: (N, H * W, H, W); 0 where the window does not reach.
        psa_type: 0: collect, the pixel is on the last two axes; 1: distribute, it is on the second axis.
        sizes: Size of the window (h_mask, w_mask) and the place of its centre (half_h_mask, half_w_mask).
    """
    output.copy_(_over_map(input, psa_type=psa_type, sizes=sizes).view_as(output))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, **sizes: int) -> None:
    """Fill ``grad_input``."""
    # Linear: the values of the input do not matter.
    inputs = (torch.zeros_like(grad_input),)
    (grad,) = gradients(partial(_over_map, psa_type=psa_type, sizes=sizes), inputs, grad_output.flatten(2))
    grad_input.copy_(grad)


def _attend(value: Tensor, sampling_locations: Tensor, attention_weights: Tensor, shapes: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # it is what imports this module

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), sampling_locations, attention_weights)


def _over_map(masks: Tensor, psa_type: int, sizes: dict[str, int]) -> Tensor:
    """Return (N, H * W, H * W)."""
    rows, columns = (torch.arange(length, device=masks.device) for length in masks.shape[2:])
    # In the window, by pixel on the map and pixel that the window is centred on.
    row = (rows[:, None] - rows + sizes['half_h_mask'])[:, None, :, None]
    column = (columns[:, None] - columns + sizes['half_w_mask'])[None, :, None, :]
    inside = (row >= 0) & (row < sizes['h_mask']) & (column >= 0) & (column < sizes['w_mask'])
    place = (row * sizes['w_mask'] + column).where(inside, 0).flatten(0, 1).flatten(1)
    collected = masks.flatten(2).gather(1, place.expand(len(masks), -1, -1)) * inside.flatten(0, 1).flatten(1)
    return collected if psa_type == 0 else collected.transpose(1, 2)
