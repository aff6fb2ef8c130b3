"""Deep layer aggregation with plain, ResNeXt, Res2Net and Res2NeXt blocks (table 1 of the Res2Net paper).

Papers: Yu et al., "Deep Layer Aggregation", CVPR 2018, https://arxiv.org/abs/1707.06484, and Gao et al., "Res2Net",
TPAMI 2021, https://arxiv.org/abs/1904.01169. Written from the papers and from the published weights' names and shapes.

The official release also holds a projection in every tree of more than one level; none of them is ever used (297,472
parameters in DLA-60), and they are left out here as in timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from mmres2net.models.arch import Arch, find_arch
from mmres2net.models.layers import (
    Cfg,
    FreezableBackbone,
    build_conv3x3,
    build_norm,
    checkpointed,
    default_init_cfg,
    gradients_wanted,
)
from mmres2net.models.options import check_frozen_stages, check_int, resolve_out_indices, trade_strides
from mmres2net.models.res2net import Bottle2neck
from mmres2net.registry import MODELS

LEVEL_CHANNELS = (16, 32, 128, 256, 512, 1024)
EXPANSION = 2


@dataclass(frozen=True)
class Opening:
    """How a level of the network begins: what its first block and its pooled input do.

    Args:
        stride: Stride of the level; 1 where it was traded for dilation.
        level_root: The pooled input goes to the level's last root (Yu et al., figure 3).
    """

    stride: int
    level_root: bool

    def pool(self) -> nn.Module:
        """Return the 2x2 maximum: with stride 2, or at every pixel where the stride was traded for dilation."""
        if self.stride == 1:
            return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -inf), nn.MaxPool2d(2, 1))
        # Rounding up as the strided convolutions do: sizes that 32 does not divide work too.
        return nn.MaxPool2d(self.stride, self.stride, ceil_mode=True)


@dataclass(frozen=True)
class Parts:
    """What all blocks and roots of a level share."""

    row: Arch
    dilation: int
    conv_cfg: Cfg | None
    norm_cfg: Cfg
    with_cp: bool

    def block(self, in_channels: int, out_channels: int, opening: Opening | None) -> nn.Module:
        """Return a block; ``opening`` is given to the first block of a level."""
        stride = 1 if opening is None else opening.stride
        # Half the dilation in the first block: its own stride is what the level's dilation replaces.
        dilation = self.dilation if opening is None else max(self.dilation // 2, 1)
        width = out_channels * self.row.base_width // 64 * self.row.cardinality // EXPANSION
        shape: Cfg = {'width': width, 'cardinality': self.row.cardinality, 'dilation': dilation}
        shared: Cfg = {'conv_cfg': self.conv_cfg, 'norm_cfg': self.norm_cfg, 'with_cp': self.with_cp}
        if self.row.scales == 1:
            return Bottleneck(in_channels, out_channels, stride, **shape, **shared)
        return Bottle2neck(
            in_channels,
            out_channels,
            scales=self.row.scales,
            stride=stride,
            is_first=opening is not None,
            **shape,
            **shared,
        )


class Bottleneck(nn.Module):
    """The 1x1, 3x3, 1x1 block of DLA-60 and DLA-X-60. It is given its shortcut by the tree."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        width: int,
        cardinality: int,
        dilation: int,
        conv_cfg: Cfg | None,
        norm_cfg: Cfg,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.conv1 = build_conv_layer(conv_cfg, in_channels, width, 1, bias=False)
        self.bn1 = build_norm(norm_cfg, width)
        self.conv2 = build_conv3x3(conv_cfg, width, stride=stride, dilation=dilation, groups=cardinality, dcn=None)
        self.bn2 = build_norm(norm_cfg, width)
        self.conv3 = build_conv_layer(conv_cfg, width, out_channels, 1, bias=False)
        self.bn3 = build_norm(norm_cfg, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride), the shape of ``shortcut``, for ``x`` (N, in_channels, H, W)."""
        if self.with_cp and gradients_wanted():
            return checkpointed(self, self._forward, x, shortcut)
        return self._forward(x, shortcut)

    def _forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class Root(nn.Module):
    """Aggregation node: a 1x1 convolution over all its children (Yu et al., section 3.2)."""

    def __init__(self, in_channels: int, out_channels: int, *, conv_cfg: Cfg | None, norm_cfg: Cfg) -> None:
        super().__init__()
        self.conv = build_conv_layer(conv_cfg, in_channels, out_channels, 1, bias=False)
        self.bn = build_norm(norm_cfg, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, children: list[Tensor]) -> Tensor:
        """Return (N, out_channels, H, W) for children of one size (N, C_i, H, W)."""
        return self.relu(self.bn(self.conv(torch.cat(children, 1))))


class Leaf(nn.Module):
    """A tree of one level: two blocks in turn and the root that joins them with what was passed down."""

    def __init__(
        self, in_channels: int, out_channels: int, root_channels: int, *, opening: Opening | None, parts: Parts
    ) -> None:
        super().__init__()
        self.level_root = opening is not None and opening.level_root
        self.downsample: nn.Module = nn.Identity() if opening is None else opening.pool()
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            conv = build_conv_layer(parts.conv_cfg, in_channels, out_channels, 1, bias=False)
            self.project = nn.Sequential(conv, build_norm(parts.norm_cfg, out_channels))
        self.tree1 = parts.block(in_channels, out_channels, opening)
        self.tree2 = parts.block(out_channels, out_channels, None)
        root_channels += in_channels if self.level_root else 0
        self.root = Root(root_channels, out_channels, conv_cfg=parts.conv_cfg, norm_cfg=parts.norm_cfg)

    def forward(self, x: Tensor, children: Sequence[Tensor] = ()) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        bottom = self.downsample(x)
        passed = [*children, bottom] if self.level_root else [*children]
        x1 = self.tree1(x, self.project(bottom))
        x2 = self.tree2(x1, x1)
        return self.root([x2, x1, *passed])


class Tree(nn.Module):
    """A tree of several levels: two smaller trees, the second of which aggregates the first's output as well."""

    def __init__(
        self,
        levels: int,
        in_channels: int,
        out_channels: int,
        root_channels: int,
        *,
        opening: Opening | None,
        parts: Parts,
    ) -> None:
        super().__init__()
        self.level_root = opening is not None and opening.level_root
        self.downsample: nn.Module = nn.Identity() if opening is None else opening.pool()
        root_channels += out_channels + (in_channels if self.level_root else 0)
        inner = None if opening is None else replace(opening, level_root=False)
        self.tree1 = build_tree(levels - 1, in_channels, out_channels, 2 * out_channels, opening=inner, parts=parts)
        self.tree2 = build_tree(levels - 1, out_channels, out_channels, root_channels, opening=None, parts=parts)

    def forward(self, x: Tensor, children: Sequence[Tensor] = ()) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        passed = [*children, self.downsample(x)] if self.level_root else [*children]
        x1 = self.tree1(x)
        return self.tree2(x1, [*passed, x1])


def build_tree(
    levels: int, in_channels: int, out_channels: int, root_channels: int, *, opening: Opening | None, parts: Parts
) -> Leaf | Tree:
    """Return a tree of ``levels`` levels whose root joins ``root_channels`` channels besides the level's input."""
    if levels == 1:
        return Leaf(in_channels, out_channels, root_channels, opening=opening, parts=parts)
    return Tree(levels, in_channels, out_channels, root_channels, opening=opening, parts=parts)


@MODELS.register_module()
class Res2NetDLA(FreezableBackbone):
    """DLA-60 with plain, ResNeXt, Res2Net or Res2NeXt blocks as a backbone.

    Stages 0 to 3 are the trees ``level2`` to ``level5`` of the published weights; the stem is what comes before them.

    Args:
        arch: A name of the DLA family in :data:`ARCHS`, or timm's name of the same network.
        in_channels: Channels of the image.
        out_indices: Stages whose output is returned, ascending; all by default. Later stages are not built.
        output_stride: 8, 16 or 32: stride of the last stage; strides beyond it are traded for dilation.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        norm_eval: Keep all batch norms on their running statistics in training.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        freeze_stem: Freezes or spares the stem whatever ``frozen_stages`` says.
        with_cp: Recompute blocks in the backward pass instead of storing them; exact, running statistics included.
        init_cfg: MMEngine's initialisation config; Kaiming normal (fan out) by default.

    Attributes:
        out_channels: Channels of each output, out of (128, 256, 512, 1024).
        out_strides: Stride of each output against the image.

    Raises:
        ValueError: An option has a value outside of what is listed here; the message says what is allowed.
    """

    def __init__(
        self,
        arch: str,
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        output_stride: int = 32,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        freeze_stem: bool | None = None,
        with_cp: bool = False,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        row = find_arch(arch)
        if row.family != 'dla':
            raise ValueError(f"arch={arch!r} is not of the DLA family; build it with type='mmres2net.Res2Net'")
        self.out_indices = resolve_out_indices(out_indices, len(row.depths))
        built = self.out_indices[-1] + 1
        super().__init__(
            frozen_stages=check_frozen_stages(frozen_stages, built),
            freeze_stem=freeze_stem,
            norm_eval=norm_eval,
            init_cfg=default_init_cfg() if init_cfg is None else init_cfg,
        )
        # A ResNet's stem has stride 4, here half of it belongs to the first tree.
        (_, *later), dilations = trade_strides((1, 2, 2, 2), output_stride)
        strides = (2, *later)
        norm_cfg = {'type': 'BN'} if norm_cfg is None else norm_cfg
        self._build_stem(check_int('in_channels', in_channels, 1), conv_cfg, norm_cfg)
        for i in range(built):
            parts = Parts(row, dilations[i], conv_cfg, norm_cfg, with_cp)
            opening = Opening(strides[i], level_root=i > 0)
            in_channels, out_channels = LEVEL_CHANNELS[i + 1 : i + 3]
            tree = build_tree(row.depths[i], in_channels, out_channels, 2 * out_channels, opening=opening, parts=parts)
            self.add_module(f'level{i + 2}', tree)
        self.out_channels = tuple(LEVEL_CHANNELS[i + 2] for i in self.out_indices)
        self.out_strides = tuple(2 * prod(strides[: i + 1]) for i in self.out_indices)
        self.freeze()

    def _build_stem(self, in_channels: int, conv_cfg: Cfg | None, norm_cfg: Cfg) -> None:
        def conv_norm(channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
            conv = build_conv_layer(
                conv_cfg, channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
            )
            return nn.Sequential(conv, build_norm(norm_cfg, out_channels), nn.ReLU(inplace=True))

        first, second = LEVEL_CHANNELS[:2]
        self.base_layer = conv_norm(in_channels, first, 7, 1)
        self.level0 = conv_norm(first, first, 3, 1)
        self.level1 = conv_norm(first, second, 3, 2)

    def stem_modules(self) -> list[nn.Module]:
        return [self.base_layer, self.level0, self.level1]

    def stage_modules(self) -> list[nn.Module]:
        return [self.get_submodule(f'level{i + 2}') for i in range(self.out_indices[-1] + 1)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) for each stage i of ``out_indices``, for ``x`` (N, in_channels, H, W)."""
        x = self.level1(self.level0(self.base_layer(x)))
        outs = []
        for i, stage in enumerate(self.stage_modules()):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
