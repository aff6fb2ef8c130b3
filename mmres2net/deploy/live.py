"""A Res2Net block with norms on the statistics of the batch as one step of the autograd graph.

Step by step, autograd keeps what every norm takes and what it gives behind the ReLU, every sum of two splits and the
splits side by side. As one step the block keeps what its convolutions give, and makes the rest again: with the batch's
statistics at hand, a norm is one multiplication and one addition a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmres2net.deploy.folding import CHANNELS_LAST, Link
from mmres2net.deploy.training import (
    Geometry,
    Plan,
    conv_backward,
    is_watched,
    run_scales,
    scales_backward,
    side_by_side,
    through_relu,
)


def is_live(link: Link) -> bool:
    """Whether :class:`LiveNormBlock` knows this link: a plain norm that counts this batch, and nobody watches."""
    conv, norm = link.conv, link.norm
    if type(norm) is not nn.BatchNorm2d or not norm.training or is_watched(conv) or is_watched(norm):
        return False
    # without a momentum, the share of a batch depends on how many came before
    usual = norm.momentum is not None and norm.affine and norm.track_running_stats
    return usual and conv.bias is None and link.is_foldable()


def live_parameters(links: Sequence[Link]) -> list[Tensor]:
    """Return the convolution's weight, the norm's weight and the norm's bias of each link in turn."""
    return [p for link in links for p in (link.conv.weight, link.norm.weight, link.norm.bias)]  # type: ignore[union-attr]


@dataclass
class NormedConv:
    """A convolution and its norm as the backward pass needs them."""

    geometry: Geometry
    eps: float
    conv_weight: Tensor
    weight: Tensor
    bias: Tensor
    given: Tensor
    """What the convolution gave."""
    mean: Tensor
    invstd: Tensor
    needs: tuple[bool, ...]
    """Whether a gradient is wanted of the convolution's weight, the norm's weight and the norm's bias."""
    grads: tuple[Tensor | None, ...] = (None, None, None)

    def relu_again(self) -> Tensor:
        """Return what the norm gave, behind its ReLU."""
        scale = self.invstd * self.weight
        shift = self.bias - self.mean * scale
        over_pixels = [t.to(self.given.dtype).view(1, -1, 1, 1) for t in (shift, scale)]
        return torch.addcmul(over_pixels[0], self.given, over_pixels[1]).relu_()

    def backward(self, grad: Tensor, fed: Tensor, *, needs_fed: bool = True) -> Tensor | None:
        """Return the gradient of what the convolution was ``fed``, for ``grad`` of the norm; keep the others."""
        back, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            grad, self.given, self.weight, None, None, self.mean, self.invstd, True, self.eps, (True, *self.needs[1:])
        )
        wanted = (needs_fed, self.needs[0], False)
        for_fed, for_conv, _ = conv_backward(back, fed, self.conv_weight, self.geometry, wanted)
        self.grads = (for_conv, for_weight if self.needs[1] else None, for_bias if self.needs[2] else None)
        return for_fed


class LiveNormBlock(Function):
    """ReLU(norm(conv3(scales(ReLU(norm(conv1(x)))))) + shortcut) that updates the norms' running statistics."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, norms: Sequence[nn.BatchNorm2d], x: Tensor, shortcut: Tensor, *parameters: Tensor
    ) -> Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        kept: list[Tensor] = []  # six tensors a convolution, in the order of NormedConv
        threes = [parameters[i : i + 3] for i in range(0, len(parameters), 3)]
        convs = [partial(_conv_norm, kept, *of_one) for of_one in zip(plan.geometries, norms, threes, strict=True)]
        inner = run_scales(plan, convs[0](x, relu=True), [partial(conv, relu=True) for conv in convs[1:-1]])
        out = convs[-1](inner, relu=False).add_(shortcut).relu_()
        ctx.plan, ctx.eps = plan, [norm.eps for norm in norms]
        ctx.save_for_backward(x, out, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, out, *kept = ctx.saved_tensors
        needs_x, needs_shortcut, *needs = ctx.needs_input_grad[2:]
        convs = [
            NormedConv(geometry, eps, *kept[6 * i : 6 * i + 6], tuple(needs[3 * i : 3 * i + 3]))  # type: ignore[call-arg]
            for i, (geometry, eps) in enumerate(zip(plan.geometries, ctx.eps, strict=True))
        ]
        grad = through_relu(grad.contiguous(memory_format=CHANNELS_LAST), out)
        first = convs[0].relu_again()
        inner = side_by_side(plan, [conv.relu_again() for conv in convs[1:-1]], first)
        back = convs[-1].backward(grad, inner)
        assert back is not None
        back = scales_backward(plan, back, first, inner, [conv.backward for conv in convs[1:-1]])
        for_x = convs[0].backward(through_relu(back, first), x, needs_fed=needs_x)
        grads = chain.from_iterable(conv.grads for conv in convs)
        return None, None, for_x, grad if needs_shortcut else None, *grads


def _conv_norm(
    kept: list[Tensor], geometry: Geometry, norm: nn.BatchNorm2d, parameters: Sequence[Tensor], x: Tensor, *, relu: bool
) -> Tensor:
    conv_weight, weight, bias = parameters
    given = torch.conv2d(x, conv_weight, None, *geometry)
    assert norm.num_batches_tracked is not None, 'is_live was not asked'
    norm.num_batches_tracked.add_(1)
    if given.numel() == given.shape[1]:
        # in nn.BatchNorm2d's own words: the operation itself takes such a batch
        raise ValueError(f'Expected more than 1 value per channel when training, got input size {given.shape}')
    out, mean, invstd = torch.ops.aten.native_batch_norm(
        given, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
    )
    kept += [conv_weight, weight, bias, given, mean, invstd]
    return out.relu_() if relu else out
