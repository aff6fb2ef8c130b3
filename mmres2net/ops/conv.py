"""Convolutions in the two cases where channels_last makes oneDNN slow on a CPU, as measured on AVX2.

The gradient of 3x3 weights reaches a quarter of a matrix product's speed where maps are large (their rows are a power
of two apart), as in the first levels of a pyramid. Over maps with a border of zeros, that gradient is one product of
two plain matrices for each place of the kernel.

Depthwise convolutions with a dilation, as in DeepLab, take three to seven times as long as in the usual format.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# The border is multiplied as well; where it is more than a fifth of the map, oneDNN is as fast.
MOST_BORDER = 0.2
# Narrower matrices keep the product's kernels from their speed.
FEWEST_CHANNELS = 48


class Conv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size, as ``nn.Conv2d`` but for a faster backward pass on the CPU.

    An ``nn.Conv2d`` that :func:`fits` becomes one by changing its class. Where autograd is off, under autocast, in
    compilation and on other devices it is ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H, W) for (N, in_channels, H, W)."""
        wanted = torch.is_grad_enabled() and self.weight.requires_grad and input.ndim == 4
        types = {input.dtype, self.weight.dtype}
        usual = input.device.type == 'cpu' and types in ({torch.float32}, {torch.float64}) and input.numel() > 0
        if not wanted or not usual or torch.is_autocast_enabled('cpu'):
            return super().forward(input)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(input)
        return SameSizeConv.apply(input, self.weight, self.bias, self.dilation)


class DilatedDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that computes in the usual memory format and hands on in that of its input.

    An ``nn.Conv2d`` that :func:`is_dilated_depthwise` becomes one by changing its class.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, C, H', W') for (N, C, H, W)."""
        if input.device.type != 'cpu' or not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        # Of one input channel a filter: both formats are one order of memory, and the strides alone tell them apart.
        weight = self.weight.reshape(-1).view(self.weight.shape)
        out = self._conv_forward(input.contiguous(), weight, self.bias)
        return out.contiguous(memory_format=torch.channels_last)


def is_dilated_depthwise(conv: nn.Module) -> bool:
    """Whether ``conv`` may become a :class:`DilatedDepthwiseConv2d`."""
    if type(conv) is not nn.Conv2d or max(conv.dilation) == 1:
        return False
    return conv.groups == conv.in_channels == conv.out_channels > 1


def fits(conv: nn.Module) -> bool:
    """Whether ``conv`` may become a :class:`Conv2d`, and gains by it."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != 'zeros' or conv.groups != 1 or conv.stride != (1, 1):
        return False
    places = zip(conv.kernel_size, conv.dilation, conv.padding, strict=True)
    same = conv.padding == 'same' or all(k % 2 == 1 and p == d * (k // 2) for k, d, p in places)
    return same and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS


class SameSizeConv(torch.autograd.Function):
    """A convolution of stride 1 with an odd kernel, padded with zeros to keep the size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.padding = dilation, _padding(weight, dilation)
        return torch.conv2d(x, weight, bias, 1, ctx.padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = _gradient_of_input(grad, x, weight, ctx.padding, ctx.dilation)
        if ctx.needs_input_grad[1]:
            for_weight = gradient_of_weight(grad, x, weight, ctx.dilation)
        if ctx.needs_input_grad[2]:
            for_bias = grad.sum((0, 2, 3))
        return for_x, for_weight, for_bias, None


def gradient_of_weight(grad: Tensor, x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Return the gradient of the weight of a convolution of stride 1 that keeps the size.

    Args:
        grad: (N, out_channels, H, W), the gradient of the output.
        x: (N, in_channels, H, W), the input.
        weight: (out_channels, in_channels, kernel height, kernel width), both odd.
        dilation: Down and across.
    """
    padding = _padding(weight, dilation)
    height, width = x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]
    if height * width > (1 + MOST_BORDER) * x.shape[2] * x.shape[3]:
        rest = (None, [1, 1], padding, dilation, False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(grad, x, weight, *rest, (False, True, False))[1]
    out, inner, kernel_height, kernel_width = weight.shape
    # In the bordered maps, one place of the kernel is one distance between rows of the two matrices, for all pixels of
    # all images: where it leads over an edge, the gradient's border is zero.
    rows, pixels = _bordered(grad, padding), _bordered(x, padding)
    gradient = x.new_empty(kernel_height, kernel_width, out, inner)
    for i in range(kernel_height):
        for j in range(kernel_width):
            distance = (i * dilation[0] - padding[0]) * width + j * dilation[1] - padding[1]
            a, b = max(-distance, 0), max(distance, 0)
            torch.mm(rows[a : len(rows) - b].t(), pixels[b : len(pixels) - a], out=gradient[i, j])
    return gradient.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _bordered(maps: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the pixels of maps with a border of zeros: (N * height * width, channels)."""
    down, across = padding
    return functional.pad(maps.permute(0, 2, 3, 1), (0, 0, across, across, down, down)).reshape(-1, maps.shape[1])


def _gradient_of_input(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    if tuple(weight.shape[2:]) == (1, 1):
        rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
        return (rows @ weight.flatten(1)).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
    rest = (None, [1, 1], padding, dilation, False, [0, 0], 1)
    return torch.ops.aten.convolution_backward(grad, x, weight, *rest, (True, False, False))[0]


def _padding(weight: Tensor, dilation: tuple[int, int]) -> tuple[int, int]:
    return dilation[0] * (weight.shape[2] // 2), dilation[1] * (weight.shape[3] // 2)
