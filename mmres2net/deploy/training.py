"""A Res2Net block with norms on their running statistics as one step of the autograd graph.

Frozen norms are usual in detection (``norm_eval=True``). Step by step, autograd then keeps the input and the output of
every norm, every split twice and every sum of two splits. As one step the block keeps three things besides its input
(conv1's output, what conv3 takes, and its own output) and makes the rest again: the sums are one addition each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from mmres2net.deploy.folding import CHANNELS_LAST, Link, is_hooked, onednn_works

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Stride, padding, dilation and groups of a convolution."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @classmethod
    def of(cls, link: Link) -> Geometry:
        """Return the geometry of a link's convolution."""
        conv = link.conv
        return cls(conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore[arg-type]


class Plan(NamedTuple):
    """What a block's step needs to know besides its tensors."""

    geometries: tuple[Geometry, ...]
    width: int
    is_first: bool
    pool: tuple[int, int] | None
    """Kernel's stride and padding of the 3x3 mean over the last split; None: it is left alone, or there is none."""


class FoldScale(Function):
    """``weight`` (O, I, h, w) times ``scale`` (O); the backward pass makes no temporary of the weight's size."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return weight * scale.view(-1, 1, 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weight, scale = ctx.saved_tensors
        for_weight = grad * scale.view(-1, 1, 1, 1) if ctx.needs_input_grad[0] else None
        for_scale = None
        if ctx.needs_input_grad[1]:
            rows = [t.permute(0, 2, 3, 1).reshape(len(t), -1) for t in (grad, weight)]
            for_scale = torch.bmm(rows[0].unsqueeze(1), rows[1].unsqueeze(2)).flatten()
        return for_weight, for_scale


def folded_pairs(links: Sequence[Link]) -> list[Tensor]:
    """Return weight, bias, weight, bias ... of the folded convolutions, differentiable in all of their parameters."""
    pairs: list[Tensor] = []
    for conv, norm in ((link.conv, link.norm) for link in links):
        assert norm is not None, 'the links of a block have norms'
        assert norm.running_var is not None, 'is_foldable was not asked'
        assert norm.running_mean is not None, 'is_foldable was not asked'
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        pairs += [FoldScale.apply(conv.weight, scale), shift]
    return pairs


class FrozenNormBlock(Function):
    """ReLU(conv3(scales(ReLU(conv1(x)))) + shortcut) with folded norms, on the CPU by oneDNN's fused convolutions."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, shortcut: Tensor, *pairs: Tensor) -> Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        weights, biases = pairs[::2], pairs[1::2]
        of_each = zip(weights, biases, plan.geometries, strict=True)
        conv1, *convs, _ = [partial(_conv_relu, weight=w, bias=b, geometry=g) for w, b, g in of_each]
        first = conv1(x)
        inner = run_scales(plan, first, convs)
        out = _conv_add_relu(inner, shortcut, weights[-1], biases[-1], plan.geometries[-1])
        ctx.plan = plan
        ctx.save_for_backward(x, first, inner, out, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, first, inner, out, *weights = ctx.saved_tensors
        needs_x, needs_shortcut, *needs = ctx.needs_input_grad[1:]
        pairs = zip(needs[::2], needs[1::2], strict=True)
        of_each = zip(weights, plan.geometries, pairs, strict=True)
        conv1, *convs, conv3 = all_convs = [FoldedBackward(*of_one) for of_one in of_each]
        grad = through_relu(grad.contiguous(memory_format=CHANNELS_LAST), out)
        back = conv3(grad, inner)
        assert back is not None
        back = scales_backward(plan, back, first, inner, convs)
        for_x = conv1(through_relu(back, first), x, needs_fed=needs_x)
        grads = chain.from_iterable(conv.grads for conv in all_convs)
        return None, for_x, grad if needs_shortcut else None, *grads


@dataclass
class FoldedBackward:
    """The backward pass of a folded convolution, which keeps the gradients of its weight and bias."""

    weight: Tensor
    geometry: Geometry
    needs: tuple[bool, ...]
    grads: tuple[Tensor | None, ...] = (None, None)

    def __call__(self, grad: Tensor, fed: Tensor, *, needs_fed: bool = True) -> Tensor | None:
        wanted = (needs_fed, self.needs[0], self.needs[1])
        for_fed, *for_parameters = conv_backward(grad, fed, self.weight, self.geometry, wanted)
        self.grads = tuple(for_parameters)
        return for_fed


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see what this very module takes or gives, or the gradients of it."""
    return is_hooked(module) or bool(module._backward_hooks or module._backward_pre_hooks)


def is_frozen(link: Link) -> bool:
    """Whether :class:`FrozenNormBlock` knows this link: a norm on its running statistics, and nobody watches."""
    if link.norm is None or is_watched(link.conv) or is_watched(link.norm):
        return False
    return link.is_at_rest() and link.is_foldable()


def run_scales(plan: Plan, x: Tensor, convs: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Return y_1 .. y_s side by side for x_1 .. x_s side by side; ``convs`` have their norms and ReLUs with them."""
    ys: list[Tensor] = []
    for conv, split in zip(convs, x.split(plan.width, 1), strict=False):
        ys.append(conv(split if plan.is_first or not ys else ys[-1] + split))
    return side_by_side(plan, ys, x)


def side_by_side(plan: Plan, ys: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return ``ys`` and what becomes of the last split of ``x`` as one tensor."""
    rest = x.split(plan.width, 1)[len(ys) :]
    return torch.cat([*ys, *(_pool(plan, split) for split in rest)], 1) if rest else ys[0]


def scales_backward(
    plan: Plan, grad: Tensor, x: Tensor, y: Tensor, backwards: Sequence[Callable[[Tensor, Tensor], Tensor | None]]
) -> Tensor:
    """Return the gradient of ``x``, of which :func:`run_scales` made ``y``, for ``grad`` of ``y``.

    ``backwards`` take the gradient of what is under the ReLU and what their convolution was fed, and give the gradient
    of the latter.
    """
    splits, ys, above = x.split(plan.width, 1), y.split(plan.width, 1), grad.split(plan.width, 1)
    last = zip(above[len(backwards) :], splits[len(backwards) :], strict=True)
    backs = [_pool_backward(plan, g, split) for g, split in last]
    fed_back: Tensor | None = None
    for i in reversed(range(len(backwards))):
        g = above[i] if fed_back is None or plan.is_first else above[i] + fed_back
        fed = splits[i] if plan.is_first or i == 0 else ys[i - 1] + splits[i]
        fed_back = backwards[i](through_relu(g, ys[i]), fed)
        assert fed_back is not None
        backs.insert(0, fed_back)
    return torch.cat(backs, 1) if len(backs) > 1 else backs[0]


def _conv_relu(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    if not onednn_works(x.dtype):
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups).relu_()
    return torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, 'relu', [], ''
    )


def _conv_add_relu(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    other = other.contiguous(memory_format=CHANNELS_LAST)
    if not onednn_works(x.dtype) or other.shape[2:].numel() == 1:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups).add_(other).relu_()
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, other, weight, bias, padding, stride, dilation, groups, 'add', 1.0, 'relu', [], ''
    )


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of input, weight and bias.

    A 1x1 convolution is two matrix products, a third faster than oneDNN's backward convolution on AVX2; and there
    asking for one gradient at a time is faster than asking for both.
    """
    stride, padding, dilation, groups = geometry
    for_bias = grad.sum((0, 2, 3)) if wanted[2] else None
    if tuple(weight.shape[2:]) == (1, 1) and tuple(stride) == (1, 1) and groups == 1:
        return *_pointwise_backward(grad, x, weight, wanted[0], wanted[1]), for_bias
    rest = (grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups)
    backward = torch.ops.aten.convolution_backward
    for_x = backward(*rest, (True, False, False))[0] if wanted[0] else None
    for_weight = backward(*rest, (False, True, False))[1] if wanted[1] else None
    return for_x, for_weight, for_bias


def _pointwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])  # (N * H * W, out_channels)
    for_x = for_weight = None
    if needs_x:
        flat = rows @ weight.flatten(1)
        for_x = flat.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    if needs_weight:
        for_weight = (rows.t() @ x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])).view(weight.shape)
    return for_x, for_weight


def through_relu(grad: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad, out, 0)


def _pool(plan: Plan, split: Tensor) -> Tensor:
    if plan.pool is None:
        return split
    return torch.nn.functional.avg_pool2d(split, 3, *plan.pool)


def _pool_backward(plan: Plan, grad: Tensor, split: Tensor) -> Tensor:
    if plan.pool is None:
        return grad
    stride, padding = plan.pool
    kernel = [3, 3]
    return torch.ops.aten.avg_pool2d_backward(
        grad.contiguous(memory_format=CHANNELS_LAST), split.contiguous(memory_format=CHANNELS_LAST),
        kernel, [stride, stride], [padding, padding], False, True, None,
    )  # fmt: skip
