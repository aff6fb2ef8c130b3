"""Deep layer aggregation with plain, ResNeXt, Res2Net and Res2NeXt blocks (table 1 of the Res2Net paper).

Papers: Yu et al., "Deep Layer Aggregation", CVPR 2018, https://arxiv.org/abs/1707.06484, and Gao et al., "Res2Net",
TPAMI 2021, https://arxiv.org/abs/1904.01169. Written from the papers and from the published weights' names and shapes.

The official release also has a projection in every tree of more than one level, which it never uses (297,472
parameters in DLA-60); they are left out here, as in timm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from torch import Tensor, nn

from mmres2net.models.arch import Arch, find_arch
from mmres2net.models.layers import BlockOptions, Cfg, FreezableBackbone, InitCfg, checkpointed
from mmres2net.models.options import check_int, resolve_out_indices, trade_strides
from mmres2net.models.res2net import Bottle2neck
from mmres2net.registry import MODELS

LEVEL_CHANNELS = (16, 32, 128, 256, 512, 1024)
EXPANSION = 2


@dataclass(frozen=True)
class Level:
    """What the trees of one level of the network share."""

    spec: Arch
    dilation: int  # of the 3x3 convolutions
    options: BlockOptions
    stride: int  # of the first block; 1 if it was traded for dilation
    is_first: bool = True  # the tree is the first one of the level: its first block has the stride
    has_root: bool = False  # the pooled input of the level goes to its last root (Yu et al., figure 3)

    def inner(self) -> 'Level':
        """Return the level for a tree that is not the first one."""
        return replace(self, is_first=False, has_root=False)

    def block(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a block."""
        stride = self.stride if self.is_first else 1
        # The first block takes half the dilation: the other half replaces its own stride.
        dilation = max(self.dilation // 2, 1) if self.is_first else self.dilation
        cardinality = self.spec.cardinality
        width = out_channels * self.spec.base_width // 64 * cardinality // EXPANSION
        if self.spec.scales == 1:
            return Bottleneck(in_channels, out_channels, width, stride, dilation, cardinality, self.options)
        shape: Cfg = {'width': width, 'scales': self.spec.scales, 'cardinality': cardinality}
        place: Cfg = {'stride': stride, 'dilation': dilation, 'is_first': self.is_first}
        return Bottle2neck(in_channels, out_channels, **shape, **place, options=self.options)

    def pool(self) -> nn.Module:
        """Return the 2x2 max pooling of the input: with stride 2, or at every pixel if the stride was traded."""
        if not self.is_first:
            return nn.Identity()
        if self.stride == 1:
            return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -inf), nn.MaxPool2d(2, 1))
        # Rounds up as the strided convolutions do: any image size works.
        return nn.MaxPool2d(self.stride, self.stride, ceil_mode=True)


class Bottleneck(nn.Module):
    """The 1x1, 3x3, 1x1 block of DLA-60 and DLA-X-60; the tree gives it its shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, width: int, stride: int, dilation: int, cardinality: int,
        options: BlockOptions,
    ) -> None:  # fmt: skip
        super().__init__()
        self.with_cp = options.with_cp
        self.conv1 = options.conv(in_channels, width)
        self.bn1 = options.norm(width)
        self.conv2 = options.conv3x3(width, stride=stride, dilation=dilation, groups=cardinality)
        self.bn2 = options.norm(width)
        self.conv3 = options.conv(width, out_channels)
        self.bn3 = options.norm(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride), the shape of ``shortcut``, for ``x`` (N, in_channels, H, W)."""
        return checkpointed(self, self._forward, x, shortcut) if self.with_cp else self._forward(x, shortcut)

    def _forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class Root(nn.Module):
    """Aggregation node: a 1x1 convolution over all its children (Yu et al., section 3.2)."""

    def __init__(self, in_channels: int, out_channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.conv = options.conv(in_channels, out_channels)
        self.bn = options.norm(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, children: list[Tensor]) -> Tensor:
        """Return (N, out_channels, H, W) for children of one size (N, C_i, H, W)."""
        return self.relu(self.bn(self.conv(torch.cat(children, 1))))


class Tree(nn.Module):
    """A tree of one level is two blocks and a root, which joins their outputs and the given children.

    A tree of several levels is two smaller trees, the second of which also aggregates the output of the first.
    ``root_channels`` are the channels that the last root joins, besides the pooled input.
    """

    def __init__(self, num_levels: int, in_channels: int, out_channels: int, root_channels: int, level: Level) -> None:
        super().__init__()
        self.level_root, self.is_leaf = level.has_root, num_levels == 1
        self.downsample = level.pool()
        root_channels += in_channels if self.level_root else 0
        if not self.is_leaf:
            first = replace(level, has_root=False)
            self.tree1: nn.Module = Tree(num_levels - 1, in_channels, out_channels, 2 * out_channels, first)
            root_channels += out_channels
            self.tree2: nn.Module = Tree(num_levels - 1, out_channels, out_channels, root_channels, level.inner())
            return
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            conv = level.options.conv(in_channels, out_channels)
            self.project = nn.Sequential(conv, level.options.norm(out_channels))
        self.tree1 = level.block(in_channels, out_channels)
        self.tree2 = level.inner().block(out_channels, out_channels)
        self.root = Root(root_channels, out_channels, level.options)

    def forward(self, x: Tensor, children: Sequence[Tensor] = ()) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        pooled = self.downsample(x) if self.level_root or self.is_leaf else x
        children = [*children, pooled] if self.level_root else children
        if not self.is_leaf:
            x1 = self.tree1(x)
            return self.tree2(x1, [*children, x1])
        x1 = self.tree1(x, self.project(pooled))
        return self.root([self.tree2(x1, x1), x1, *children])


@MODELS.register_module()
class Res2NetDLA(FreezableBackbone):
    """DLA-60 with plain, ResNeXt, Res2Net or Res2NeXt blocks as a backbone.

    Stages 0 to 3 are the trees ``level2`` to ``level5`` of the published weights; the stem is ``base_layer``,
    ``level0`` and ``level1``.

    Args:
        arch: A name of the DLA family in :data:`ARCHS`, or timm's name of the same network.
        in_channels: Channels of the image.
        out_indices: Stages whose output is returned, ascending; all by default. Later stages are not built.
        output_stride: 8, 16 or 32: stride of the last stage; strides beyond it are traded for dilation.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config; batch norm by default.
        norm_eval: Keep all batch norms on their running statistics in training.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        with_cp: Recompute blocks in the backward pass instead of storing their activations, as in :class:`Res2Net`.
        init_cfg: MMEngine's initialization config; Kaiming normal (fan out) by default.

    Attributes:
        out_channels: Channels of each output, out of (128, 256, 512, 1024).
        out_strides: Stride of each output against the image.

    Raises:
        ValueError: An option has a value that is not allowed; the message says what is.
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
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        spec = find_arch(arch)
        if spec.family != 'dla':
            raise ValueError(f"arch={arch!r} is not of the DLA family; build it with type='mmres2net.Res2Net'")
        out_indices = resolve_out_indices(out_indices, len(spec.depths))
        num_built = out_indices[-1] + 1
        super().__init__(frozen_stages, norm_eval, init_cfg)
        # A ResNet's stem has stride 4; here half of it belongs to the first tree.
        (_, *later), dilations = trade_strides((1, 2, 2, 2), output_stride)
        strides = (2, *later)
        options = BlockOptions(conv_cfg, norm_cfg, with_cp)
        self.out_indices = out_indices
        self._build_stem(check_int('in_channels', in_channels, 1), options)
        self.stage_names = tuple(f'level{i + 2}' for i in range(num_built))
        for i, name in enumerate(self.stage_names):
            level = Level(spec, dilations[i], options, strides[i], has_root=i > 0)
            in_channels, channels = LEVEL_CHANNELS[i + 1 : i + 3]
            self.add_module(name, Tree(spec.depths[i], in_channels, channels, 2 * channels, level))
        self.out_channels = tuple(LEVEL_CHANNELS[i + 2] for i in out_indices)
        self.out_strides = tuple(2 * prod(strides[: i + 1]) for i in out_indices)
        self.freeze()

    def _build_stem(self, in_channels: int, options: BlockOptions) -> None:
        def conv_norm(channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
            conv = options.conv(channels, out_channels, kernel, stride)
            return nn.Sequential(conv, options.norm(out_channels), nn.ReLU(inplace=True))

        first, second = LEVEL_CHANNELS[:2]
        self.base_layer = conv_norm(in_channels, first, 7, 1)
        self.level0 = conv_norm(first, first, 3, 1)
        self.level1 = conv_norm(first, second, 3, 2)

    def stem_modules(self) -> list[nn.Module]:
        return [self.base_layer, self.level0, self.level1]

    def stem(self, x: Tensor) -> Tensor:
        """Return (N, 32, H/2, W/2), the first stage's input, for ``x`` (N, in_channels, H, W)."""
        return self.level1(self.level0(self.base_layer(x)))
