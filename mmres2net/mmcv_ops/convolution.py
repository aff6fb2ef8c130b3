"""Deformable convolutions by torchvision.

Dai et al., "Deformable Convolutional Networks", 2017; Zhu et al., "Deformable ConvNets v2", 2018. Shapes throughout:
input (N, C, H, W), weight (O, C / group, kernel height, kernel width), offset (N, deformable_group * 2 * kernel places,
H', W') with the vertical shift of each place first, mask (N, deformable_group * kernel places, H', W'), output
(N, O, H', W'). ``sizes`` are mmcv's names for stride, padding, dilation and groups; ``im2col_step`` among them and the
buffers ``columns`` and ``ones`` change no result.
"""

import torch
from torch import Tensor

from mmres2net.mmcv_ops.common import computable

Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]  # input, weight, offset, mask, bias
# In torchvision's order.
FIRST = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
SECOND = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    """Fill ``output``."""
    output.copy_(_forward((input, weight, offset, None, None), [sizes[name] for name in FIRST]))


def deform_conv_backward_input(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
    columns: Tensor, **sizes: int,
) -> None:  # fmt: skip
    """Fill ``grad_input`` and ``grad_offset``; leave the weight's gradient in ``columns`` for the next function."""
    grads = _backward(grad_output, (input, weight, offset, None, None), [sizes[name] for name in FIRST])
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])
    columns.resize_(weight.shape).copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    """Fill ``grad_weight``."""
    if columns.shape != grad_weight.shape:
        # The gradient of the weight does not depend on the weight.
        tensors = (input, torch.zeros_like(grad_weight), offset, None, None)
        columns = _backward(grad_output, tensors, [sizes[name] for name in FIRST])[1]
    grad_weight.copy_(columns).mul_(sizes['scale'])
    columns.resize_(0)


def modulated_deform_conv_forward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, output: Tensor,
    columns: Tensor, **sizes: int,
) -> None:  # fmt: skip
    """Fill ``output``."""
    tensors = (input, weight, offset, mask, bias if sizes['with_bias'] else None)
    output.copy_(_forward(tensors, [sizes[name] for name in SECOND]))


def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, columns: Tensor,
    grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor,
    grad_output: Tensor, **sizes: int,
) -> None:  # fmt: skip
    """Fill the gradients of all inputs; ``grad_bias`` only with a bias."""
    tensors = (input, weight, offset, mask, bias if sizes['with_bias'] else None)
    grads = _backward(grad_output, tensors, [sizes[name] for name in SECOND])
    targets = (grad_input, grad_weight, grad_offset, grad_mask, *((grad_bias,) if sizes['with_bias'] else ()))
    for target, grad in zip(targets, grads, strict=False):
        target.copy_(grad)


def _forward(tensors: Tensors, geometry: list[int]) -> Tensor:
    return torch.ops.torchvision.deform_conv2d(*_arguments(tensors), *geometry, tensors[3] is not None)


def _backward(grad: Tensor, tensors: Tensors, geometry: list[int]) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight, offset, mask and bias."""
    arguments = (computable(grad), *_arguments(tensors), *geometry, tensors[3] is not None)
    return torch.ops.torchvision._deform_conv2d_backward(*arguments)


def _arguments(tensors: Tensors) -> tuple[Tensor, ...]:
    input, weight, offset, mask, bias = tensors
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return tuple(computable(tensor) for tensor in (input, weight, offset, mask, bias))
