"""Multi-scale deformable attention and the focal loss."""

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mmres2net.mmcv_ops.common import computable


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
        im2col_step: Not used.
    """
    tensors = (computable(tensor) for tensor in (value, sampling_locations, attention_weights))
    return _attend(value_spatial_shapes, *tensors).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor, sampling_locations: Tensor,
    attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor, grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor, im2col_step: int,
) -> None:  # fmt: skip
    """Fill the gradients of values, sampling locations and attention weights."""
    with torch.enable_grad():
        tensors = (value, sampling_locations, attention_weights)
        leaves = [computable(tensor).detach().requires_grad_() for tensor in tensors]
        attended = _attend(value_spatial_shapes, *leaves)
    grads = torch.autograd.grad(attended, leaves, computable(grad_output))
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def _attend(shapes: Tensor, value: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # it is what imports this module

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), sampling_locations, attention_weights)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss of every logit: Lin et al., "Focal Loss", 2017, equation 5.

    Logarithms of probabilities are exact, where mmcv's operators cut them off at the smallest number of the type.
    ``target`` (N,) has a class for each row of ``input`` (N, C): any number that is not a class stands for the
    background. ``weight`` (C,) has a factor for each class of a target, or is empty.
    """
    output.copy_(_focal_loss(computable(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of every loss by its logit."""
    with torch.enable_grad():
        leaf = computable(input).detach().requires_grad_()
        loss = _focal_loss(leaf, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, leaf)[0])


def _focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    positive = (target[:, None] == torch.arange(input.size(1), device=input.device)).to(input.dtype)
    loss: Tensor = sigmoid_focal_loss(input, positive, alpha, gamma)
    return loss * weight[target][:, None] if weight.numel() else loss
