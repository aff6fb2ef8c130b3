"""Res2Net written a second time, in plain torch: from the paper (arXiv 1904.01169: figure 2, section 3.1, tables 3 and
4) and from facts of the public releases that the paper does not state.

* width of a split = floor(planes * base_width / 64) * cardinality; scales - 1 convolutions, the last split has none;
* a stage's first block has no hierarchical additions, and its last split is average-pooled 3x3 with the padding
  counted. Which blocks really pool differs between code bases: see `last_split_pool`;
* v1b: stem of three 3x3 convolutions, and shortcuts that average (padding not counted) before a 1x1 convolution;
* squeeze-excite after the last norm, before the addition;
* 32-pixel networks (Table 4): three stages, no stem pooling, each stage starts with a plain ResNeXt block of the same
  full width whose groups are cardinality * scales. Only so do the parameter counts of Table 4 come out.

Parameter names are those of the official release, so weights are exchanged with `load_state_dict(strict=True)`.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

POOL_MODES = ('official', 'mmdet', 'maskrcnn')


class Spec(NamedTuple):
    """What tells one network from another; the defaults are Res2Net-50 26w x 4s."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    base_width: int = 26
    scales: int = 4
    cardinality: int = 1
    v1b: bool = False
    cifar: bool = False
    se_reduction: int | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        return (1,) + (2,) * (len(self.depths) - 1)


_v1b = partial(Spec, v1b=True)
_cifar = partial(Spec, depths=(3, 3, 3), cifar=True)
_DEEP, _DEEPER = (3, 4, 23, 3), (3, 8, 36, 3)

SPECS = {
    'res2net50_48w_2s': Spec(base_width=48, scales=2), 'res2net50_26w_4s': Spec(),
    'res2net50_14w_8s': Spec(base_width=14, scales=8), 'res2net50_26w_6s': Spec(scales=6),
    'res2net50_26w_8s': Spec(scales=8), 'res2net50_18w_4s': Spec(base_width=18),
    'res2net50_18w_6s': Spec(base_width=18, scales=6), 'res2net101_26w_4s': Spec(_DEEP),
    'res2net152_26w_4s': Spec(_DEEPER), 'res2net50_v1b_26w_4s': _v1b(), 'res2net101_v1b_26w_4s': _v1b(_DEEP),
    'res2net152_v1b_26w_4s': _v1b(_DEEPER), 'res2next50_4s': Spec(base_width=4, cardinality=8),
    'se_res2net50_26w_4s': Spec(se_reduction=16), 'resnext29_8c64w': _cifar(base_width=64, scales=1, cardinality=8),
    'resnext29_16c64w': _cifar(base_width=64, scales=1, cardinality=16),
    'res2next29_6c24w4s': _cifar(base_width=24, scales=4, cardinality=6),
    'res2next29_8c25w4s': _cifar(base_width=25, scales=4, cardinality=8),
    'res2next29_6c24w6s': _cifar(base_width=24, scales=6, cardinality=6),
    'se_resnext29_8c64w': _cifar(base_width=64, scales=1, cardinality=8, se_reduction=8),
    'se_res2next29_6c24w4s': _cifar(base_width=24, scales=4, cardinality=6, se_reduction=32),
    'se_res2next29_8c25w4s': _cifar(base_width=25, scales=4, cardinality=8, se_reduction=32),
    'se_res2next29_6c24w6s': _cifar(base_width=24, scales=6, cardinality=6, se_reduction=32),
}  # fmt: skip

# Rows that timm has too, under its names
TIMM_NAMES = {
    f'res2net50_{width}': f'res2net50_{width}' for width in ('48w_2s', '26w_4s', '14w_8s', '26w_6s', '26w_8s')
}
TIMM_NAMES |= {'res2net101_26w_4s': 'res2net101_26w_4s', 'res2next50_4s': 'res2next50'}
TIMM_NAMES |= {'res2net50_v1b_26w_4s': 'res2net50d', 'res2net101_v1b_26w_4s': 'res2net101d'}


def conv3x3(cin: int, cout: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def conv1x1(cin: int, cout: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 1, stride, bias=False)


class SqueezeExcite(nn.Module):
    """(N, C, H, W) scaled per channel by a gate in (0, 1), from the mean over H and W."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(dim=2)[:, :, None, None]
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(mean))))


class SamePaddedMean2x2(nn.Module):
    """2x2 mean with stride 1; one row of zeros below and one column to the right keep the size, and count."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        return (x[..., :-1, :-1] + x[..., 1:, :-1] + x[..., :-1, 1:] + x[..., 1:, 1:]) / 4


def last_split_pool(mode: str, stride: int) -> nn.Module:
    """The three treatments of the last split in a stage's first block (torch counts the padding by default)."""
    if mode == 'mmdet' and stride == 1:
        return nn.Identity()
    return nn.AvgPool2d(3, 1 if mode == 'maskrcnn' else stride, padding=1)


def shortcut(cin: int, cout: int, stride: int, dilation: int, v1b: bool, mode: str) -> nn.Sequential:
    """Projection of a stage's first block; under v1b the mean comes before the convolution and takes its stride."""
    if not v1b:
        return nn.Sequential(conv1x1(cin, cout, stride), nn.BatchNorm2d(cout))
    mean: nn.Module = nn.Identity()
    if stride > 1:
        mean = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    elif dilation > 1 and mode == 'official':
        mean = SamePaddedMean2x2()
    return nn.Sequential(mean, conv1x1(cin, cout), nn.BatchNorm2d(cout))


class Block(nn.Module):
    """1x1 -> splits -> 1x1, plus shortcut. `first`: a stage's first block; `groups` divide each 3x3 convolution."""

    def __init__(self, cin, planes, width, scales, groups, *, first=False, stride=1, dilation=1, mode='official'):
        super().__init__()
        self.first, self.scales = first, scales
        conv1_stride, conv3x3_stride = (stride, 1) if mode == 'maskrcnn' else (1, stride)
        self.conv1, self.bn1 = conv1x1(cin, width * scales, conv1_stride), nn.BatchNorm2d(width * scales)
        count = max(scales - 1, 1)
        self.convs = nn.ModuleList(conv3x3(width, width, conv3x3_stride, dilation, groups) for _ in range(count))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))
        self.last = last_split_pool(mode, stride) if first else nn.Identity()
        self.conv3, self.bn3 = conv1x1(width * scales, 4 * planes), nn.BatchNorm2d(4 * planes)
        self.se: nn.Module = nn.Identity()
        self.downsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        splits = torch.relu(self.bn1(self.conv1(x))).chunk(self.scales, dim=1)
        done: list[Tensor] = []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            hierarchical = i > 0 and not self.first
            done.append(torch.relu(bn(conv(splits[i] + done[-1] if hierarchical else splits[i]))))
        if self.scales > 1:
            done.append(self.last(splits[-1]))
        y = self.bn3(self.conv3(torch.cat(done, dim=1)))
        return torch.relu(self.se(y) + self.downsample(x))


class ReferenceRes2Net(nn.Module):
    """`contract`: the first block of a dilated stage dilates by half; `multi_grid`: dilations of the last blocks."""

    def __init__(
        self, spec, *, in_channels=3, mode='official', strides=None, dilations=None, contract=False, multi_grid=None
    ):
        super().__init__()
        self.spec = spec
        self.conv1, self.bn1 = self._stem(in_channels)
        channels, last = 64, len(spec.depths) - 1
        for i, depth in enumerate(spec.depths):
            stride = (strides or spec.strides)[i]
            dilation = (dilations or (1,) * (last + 1))[i]
            grid = [max(dilation // 2, 1) if contract else dilation] + [dilation] * (depth - 1)
            if multi_grid and i == last:
                grid = list(multi_grid)
            stage = self._stage(channels, 64 * 2**i, stride, grid, mode)
            channels = 256 * 2**i
            stage[0].downsample = shortcut(stage[0].conv1.in_channels, channels, stride, dilation, spec.v1b, mode)
            self.add_module(f'layer{i + 1}', stage)

    def _stem(self, cin: int) -> tuple[nn.Module, nn.Module]:
        if self.spec.cifar:
            return conv3x3(cin, 64), nn.BatchNorm2d(64)
        if not self.spec.v1b:
            return nn.Conv2d(cin, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        half = [conv3x3(cin, 32, 2), nn.BatchNorm2d(32), nn.ReLU(), conv3x3(32, 32), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*half, conv3x3(32, 64)), nn.BatchNorm2d(64)

    def _stage(self, cin: int, planes: int, stride: int, grid: list[int], mode: str) -> nn.Sequential:
        spec, blocks = self.spec, []
        width = planes * spec.base_width // 64 * spec.cardinality
        for i, dilation in enumerate(grid):
            shape = (width, spec.scales, spec.cardinality)
            if spec.cifar and i == 0:
                shape = (width * spec.scales, 1, spec.cardinality * spec.scales)
            first = dict(first=True, stride=stride) if i == 0 else {}
            block = Block(cin if i == 0 else 4 * planes, planes, *shape, dilation=dilation, mode=mode, **first)
            if spec.se_reduction and not (spec.cifar and i == 0):
                block.se = SqueezeExcite(4 * planes, spec.se_reduction)
            blocks.append(block)
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.bn1(self.conv1(x)))
        if not self.spec.cifar:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        features = []
        for i in range(len(self.spec.depths)):
            x = self.get_submodule(f'layer{i + 1}')(x)
            features.append(x)
        return features


def output_stride_kwargs(output_stride: int) -> dict:
    """Strides and dilations that stop a four-stage network at 1/8, 1/16 or 1/32."""
    strides = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}[output_stride]
    dilations = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}[output_stride]
    return dict(strides=strides, dilations=dilations, contract=True)
