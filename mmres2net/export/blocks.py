"""The Res2Net module as inference runtimes like it: the same function, exact but for rounding, in fewer steps.

Norms are folded into the convolutions. Where a split is no multiple of 8 channels, on which the kernels of CPU runtimes
work, it gets spare channels up to the next multiple, and those carry the channels of the last split, which has no 3x3
convolution of its own: nothing is computed on zeros. Each split then comes from a 1x1 convolution of its own, and
neither a Split nor an unaligned Concat is left, around which runtimes would change the layout of their tensors.

The first block pools the last split, and its spare channels pool what they carry. In the other blocks a split's output
is added to the next split: spare channel j of carrier i then holds the sum of what carriers 1 to i were given. The last
1x1 convolution takes that apart again by its weights, since a sum_k w_k a_k is a sum over partial sums of w_k - w_k+1.

Strided 1x1 convolutions become a pool of single pixels and a plain one, for which runtimes have their fastest kernel.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmres2net.models.res2net import Bottle2neck

ALIGNED = 8  # channels that CPU runtimes keep together
Module = TypeVar('Module', bound=nn.Module)


def rewritten(model: Module) -> Module:
    """Return a copy of ``model`` in evaluation mode with its norms folded and its Res2Net modules rewritten.

    Modules with deformable convolutions, plugins or other norms stay as they are.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _rewrite(model)
    model = fuse_conv_bn(model)
    _sample_first(model)
    return model


def _rewrite(model: nn.Module) -> None:
    for name, child in model.named_children():
        if isinstance(child, Bottle2neck) and _is_plain(child):
            lanes = bool(child.width % ALIGNED) and _can_carry(child)
            setattr(model, name, CarryingBlock(child) if lanes else FoldedBlock(child))
        else:
            _rewrite(child)


def _sample_first(model: nn.Module) -> None:
    for name, child in model.named_children():
        if type(child) is nn.Conv2d and (child.kernel_size, child.stride, child.padding) == ((1, 1), (2, 2), (0, 0)):
            child.stride = (1, 1)
            setattr(model, name, nn.Sequential(nn.MaxPool2d(1, 2), child))
        else:
            _sample_first(child)


def _is_plain(block: Bottle2neck) -> bool:
    convs = [block.conv1, *block.convs, block.conv3]
    norms = [block.bn1, *block.bns, block.bn3]
    plugins = [block.after_conv1, block.after_conv2, block.after_conv3]
    return (
        all(type(conv) is nn.Conv2d and conv.padding_mode == 'zeros' for conv in convs)
        and all(isinstance(norm, _BatchNorm) and norm.track_running_stats for norm in norms)
        and not any(len(list(plugin)) for plugin in plugins)
    )


def _can_carry(block: Bottle2neck) -> bool:
    """Whether the 3x3 convolutions can pass the last split on, or pool it as the block does."""
    first: nn.Conv2d = block.convs[0]  # type: ignore[assignment]
    pooled = isinstance(block.pool, nn.AvgPool2d)
    strided = first.stride != (1, 1)
    if first.groups != 1 or block.conv1.out_channels == block.width:
        return False
    return not (pooled and first.dilation != (1, 1)) and not (strided and not pooled)


class FoldedBlock(nn.Module):
    """A :class:`Bottle2neck` with its norms folded."""

    def __init__(self, block: Bottle2neck) -> None:
        super().__init__()
        self.width, self.is_first = block.width, block.is_first
        self.conv1 = _folded(block.conv1, block.bn1)
        self.convs = nn.ModuleList(map(_folded, block.convs, block.bns))
        self.conv3 = _folded(block.conv3, block.bn3)
        self.pool, self.se, self.downsample = block.pool, block.se, block.downsample

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return what :meth:`Bottle2neck.forward` does."""
        ys: list[Tensor] = []
        splits = self.splits(x)
        for conv, split in zip(self.convs, splits, strict=False):
            ys.append(conv(split if self.is_first or not ys else ys[-1] + split).relu())
        ys.extend(self.pool(split) for split in splits[len(ys) :])
        out = self.se(self.conv3(torch.cat(ys, 1) if len(ys) > 1 else ys[0]))
        return (out + (self.downsample(x) if shortcut is None else shortcut)).relu()

    def splits(self, x: Tensor) -> list[Tensor]:
        """Return the splits, each (N, width, H, W), with which the 3x3 convolutions begin."""
        return list(self.conv1(x).relu().split(self.width, 1))


class CarryingBlock(FoldedBlock):
    """A :class:`Bottle2neck` of aligned splits whose spare channels carry the last split, see the head of this file."""

    def __init__(self, block: Bottle2neck) -> None:
        super().__init__(block)
        shares = _shares(block)
        conv1, conv3 = self.conv1, self.conv3
        kernels = [_own_and_carried(i, share, block.width) for i, share in enumerate(shares)]
        rest = _rest(shares, block)
        if rest:
            kernels.append(rest)
        aligned = [_aligned(len(kernel)) for kernel in kernels]
        self.conv1s = nn.ModuleList(
            _conv(_rows(conv1.weight, kernel, size), _rows(_bias(conv1), kernel, size), conv1)
            for kernel, size in zip(kernels, aligned, strict=True)
        )
        self.convs = nn.ModuleList(
            _passing_on(conv, aligned[0], pooled=isinstance(block.pool, nn.AvgPool2d)) for conv in self.convs
        )
        weight = torch.cat(
            [_rows(conv3.weight.transpose(0, 1), *pair) for pair in zip(kernels, aligned, strict=True)]
        ).transpose(0, 1)
        if not block.is_first:
            _take_apart(weight, conv3.weight, shares, block.width)
        self.conv3 = _conv(weight, _bias(conv3), conv3)
        del self.conv1

    def splits(self, x: Tensor) -> list[Tensor]:
        """Return the carriers and, if any is left, the rest of the last split."""
        return [conv(x).relu() for conv in self.conv1s]


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    return fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var, arg-type, return-value]


def _aligned(channels: int) -> int:
    return -(-channels // ALIGNED) * ALIGNED


def _shares(block: Bottle2neck) -> list[list[int]]:
    """Return the channels of conv1's output that are of the last split, for each carrier those that it takes."""
    spare = _aligned(block.width) - block.width
    end = block.conv1.out_channels
    last = range(end - block.width, end)
    return [list(last[i * spare : (i + 1) * spare]) for i in range(len(block.convs))]


def _own_and_carried(index: int, share: list[int], width: int) -> list[int]:
    return [*range(index * width, (index + 1) * width), *share]


def _rest(shares: list[list[int]], block: Bottle2neck) -> list[int]:
    end = block.conv1.out_channels
    return list(range(end - block.width + sum(map(len, shares)), end))


def _rows(tensor: Tensor, rows: list[int], size: int) -> Tensor:
    """Return ``rows`` of ``tensor`` and zeros behind them, ``size`` in all."""
    padded = tensor.new_zeros(size, *tensor.shape[1:])
    padded[: len(rows)] = tensor.detach()[rows]
    return padded


def _passing_on(conv: Any, size: int, *, pooled: bool) -> nn.Conv2d:
    """Return a 3x3 convolution of ``size`` channels that does what ``conv`` does, and passes the others on or pools."""
    width = conv.in_channels
    weight = conv.weight.new_zeros(size, size, 3, 3)
    weight[:width, :width] = conv.weight.detach()
    for channel in range(width, size):
        if pooled:
            weight[channel, channel] = 1 / 9
        else:
            weight[channel, channel, 1, 1] = 1
    return _conv(weight, _rows(_bias(conv), list(range(width)), size), conv)


def _take_apart(weight: Tensor, original: Tensor, shares: list[list[int]], width: int) -> None:
    """Change the weights of the spare channels, in place, from those of what they were given to those of its sums."""
    size = _aligned(width)
    for index, following in enumerate(shares[1:]):
        start = index * size + width
        # A carrier that takes less than the one before it leaves the last sums as they are.
        weight[:, start : start + len(following)] -= original.detach()[:, following]


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, 'a folded convolution has a bias'
    return conv.bias.detach()


def _conv(weight: Tensor, bias: Tensor, like: nn.Conv2d) -> nn.Conv2d:
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=like.stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        dilation=like.dilation,  # type: ignore[arg-type]
    )
    conv.weight.data, conv.bias.data = weight.contiguous(), bias.clone()  # type: ignore[union-attr]
    return conv.requires_grad_(False)
