"""Operators on all pixels of a map or all rows of logits: attention, upsampling by CARAFE, focal loss."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

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


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **sizes: int) -> None:
    """Fill ``output``: every pixel of the larger map is a weighted sum of a window of the smaller one.

    Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", 2019, equation 4. Shapes: features (N, C, H, W), masks
    (N, group_size * kernel_size^2, scale_factor * H, scale_factor * W), output (N, C, scale_factor * H, scale_factor *
    W); the channels are in ``group_size`` groups that share their masks.
    """
    output.copy_(_reassemble(computable(features), computable(masks), **sizes))


def carafe_naive_backward(
    top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **sizes: int
) -> None:
    """Fill ``bottom_grad`` and ``mask_grad`` with the gradients of features and masks."""
    grads = gradients(lambda x, m: _reassemble(x, m, **sizes), (features, masks), top_grad)
    bottom_grad.copy_(grads[0])
    mask_grad.copy_(grads[1])


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **sizes: int
) -> None:
    """Fill ``output``, and ``rfeatures`` with the features, which backward is handed in their place."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **sizes: int,
) -> None:  # fmt: skip
    """Fill ``bottom_grad`` and ``mask_grad``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, **sizes)


def _reassemble(features: Tensor, masks: Tensor, *, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    images, channels, height, width = features.shape
    border = kernel_size // 2
    padded = functional.pad(features, (border,) * 4)
    # Axes: images, groups, channels of a group, rows, rows within one, columns, columns within one.
    weights = masks.reshape(images, group_size, -1, height, scale_factor, width, scale_factor)
    output = features.new_zeros(())
    for place in range(kernel_size**2):
        row, column = divmod(place, kernel_size)
        window = padded[:, :, row : row + height, column : column + width]
        window = window.reshape(images, group_size, -1, height, 1, width, 1)
        output = output + window * weights[:, :, place, None]
    return output.reshape(images, channels, height * scale_factor, width * scale_factor)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss of every logit: Lin et al., "Focal Loss", 2017, equation 5.

    Logarithms of probabilities are exact, where mmcv's operators cut them off at the smallest number of the type.

    Args:
        input: (N, C), a row for each target.
        target: (N,), a class for each row: any number that is not a class stands for the background.
        weight: (C,), one factor for each class of a target, or empty.
        gamma: Exponent of the modulating factor.
        alpha: Weight of the positive class; the negative ones weigh 1 - alpha.
    """
    input, positive = computable(input), _one_hot(target, input)
    signed = torch.where(positive, input, -input)
    loss = -torch.sigmoid(-signed).pow(gamma) * functional.logsigmoid(signed)
    output.copy_(loss * _factor(positive, target, weight, alpha, input.dtype))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of every loss by its logit."""
    input, positive = computable(input), _one_hot(target, input)
    signed = torch.where(positive, input, -input)
    right, wrong = torch.sigmoid(signed), torch.sigmoid(-signed)
    slope = wrong.pow(gamma) * (gamma * right * functional.logsigmoid(signed) - wrong)
    grad_input.copy_(torch.where(positive, slope, -slope) * _factor(positive, target, weight, alpha, input.dtype))


def _one_hot(target: Tensor, input: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.size(1), device=target.device)


def _factor(positive: Tensor, target: Tensor, weight: Tensor, alpha: float, dtype: torch.dtype) -> Tensor:
    factor = (1 - alpha) + (2 * alpha - 1) * positive.to(dtype)
    return factor * weight[target][:, None] if weight.numel() else factor
