"""Res2Net, Res2NeXt, SE-Res2Net and the CIFAR variants as one backbone.

Paper: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021, https://arxiv.org/abs/1904.01169.
Written from the paper and from the names and shapes of the published weights, which the parameters here have too.

Where the paper and the published weights disagree, the code follows the weights. Equation (1) has no convolution for
the *first* split, but the weights have none for the *last* one. The paper does not mention that the first block of a
stage is different: its splits do not feed each other, all its 3x3 convolutions have the stride, and its last split is
average-pooled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul

import torch
from mmcv.cnn import build_plugin_layer
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

from mmres2net.models import options as opts
from mmres2net.models.arch import Arch, Family
from mmres2net.models.layers import BlockOptions, Cfg, FreezableBackbone, InitCfg, SqueezeExcite, checkpointed
from mmres2net.models.options import STAGE_POOLS, StagePlan, StagePool
from mmres2net.registry import MODELS

EXPANSION = 4
STAGE_PLANES = (64, 128, 256, 512)


class Bottle2neck(nn.Module):
    """The Res2Net module (section 3.1, figure 2b): a bottleneck whose 3x3 convolutions work on s splits in turn."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,  # channels of one split
        scales: int,  # number of splits s; 1 is a plain bottleneck
        cardinality: int = 1,  # groups of each 3x3 convolution
        stride: int = 1,
        dilation: int = 1,  # of the 3x3 convolutions
        is_first: bool = False,  # the first block of a stage: its splits do not feed each other
        downsample: nn.Module | None = None,  # of the shortcut; None: the identity
        se_reduction: int | None = None,  # of the squeeze-and-excitation; None: no such module
        drop_path: float = 0.0,  # probability that the residual branch of a sample is dropped in training
        options: BlockOptions | None = None,
    ) -> None:
        super().__init__()
        options = BlockOptions() if options is None else options
        self.width, self.is_first, self.with_cp, self.with_dcn = width, is_first, options.with_cp, bool(options.dcn)
        stride1, stride3 = (stride, 1) if options.stage_pool == 'maskrcnn' else (1, stride)
        self.stage_pools = _equal_stage_pools(options.stage_pool, stride, scales) if is_first else STAGE_POOLS

        self.conv1 = options.conv(in_channels, width * scales, stride=stride1)
        self.bn1 = options.norm(width * scales)
        self.convs = nn.ModuleList(
            options.conv3x3(width, stride=stride3, dilation=dilation, groups=cardinality)
            for _ in range(max(scales - 1, 1))
        )
        self.bns = nn.ModuleList(options.norm(width) for _ in self.convs)
        pooled = scales > 1 and is_first and (options.stage_pool != 'mmdet' or stride != 1)
        # Padding counts here, but not in the shortcut's pool: the published weights were trained so.
        self.pool = nn.AvgPool2d(3, stride3, padding=1) if pooled else nn.Identity()
        self.conv3 = options.conv(width * scales, out_channels)
        self.bn3 = options.norm(out_channels)
        self.se = SqueezeExcite(out_channels, se_reduction) if se_reduction else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.relu = nn.ReLU(inplace=True)
        channels = (width * scales, width * scales, out_channels)
        self.after_conv1, self.after_conv2, self.after_conv3 = (
            _build_plugins([plugin for plugin in options.plugins if plugin['position'] == position], count)
            for position, count in zip(opts.PLUGIN_POSITIONS, channels, strict=True)
        )

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride); ``shortcut``, of that shape, replaces the block's own."""
        return checkpointed(self, self._forward, x, shortcut) if self.with_cp else self._forward(x, shortcut)

    def _forward(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        out = self.after_conv1(self.relu(self.bn1(self.conv1(x))))
        out = self.after_conv2(self._multi_scale(out))
        out = self.after_conv3(self.drop_path(self.se(self.bn3(self.conv3(out)))))
        out = out + (self.downsample(x) if shortcut is None else shortcut)
        return self.relu(out)

    def _multi_scale(self, x: Tensor) -> Tensor:
        """Return y_1 .. y_s of equation (1), (N, s * width, H/stride, W/stride), for x_1 .. x_s side by side."""
        splits = x.split(self.width, 1)
        ys: list[Tensor] = []
        for conv, bn, split in zip(self.convs, self.bns, splits, strict=False):
            y = split if self.is_first or not ys else ys[-1] + split
            # mmcv's deformable convolution reads its input as if it were contiguous
            ys.append(self.relu(bn(conv(y.contiguous() if self.with_dcn else y))))
        ys.extend(self.pool(split) for split in splits[len(ys) :])
        return torch.cat(ys, 1) if len(ys) > 1 else ys[0]


def _equal_stage_pools(stage_pool: str, stride: int, scales: int) -> tuple[str, ...]:
    """Return every ``stage_pool`` with which the first block of a stage computes the same."""
    plain = ('official', 'maskrcnn') if scales > 1 else STAGE_POOLS
    equal = ('official', 'mmdet') if stride > 1 else plain
    return equal if stage_pool in equal else (stage_pool,)


def _build_plugins(plugins: Sequence[Cfg], channels: int) -> nn.Sequential:
    built = nn.Sequential()
    for plugin in plugins:
        cfg = dict(plugin['cfg'])
        name, layer = build_plugin_layer(cfg, in_channels=channels, postfix=cfg.pop('postfix', ''))
        built.add_module(name, layer)
    return built


@MODELS.register_module()
class Res2Net(FreezableBackbone):
    """The Res2Net family as a backbone for detection, segmentation and classification.

    Args:
        arch: A name of :data:`ARCHS` or timm's name of the same network. Leave it out to build a network outside the
            table from ``depths``, ``base_width`` (26), ``scales`` (4), ``cardinality`` (1) and ``family``.
        depths: Blocks per stage.
        base_width: Channels of a split where the stage's planes are 64.
        scales: Number of splits s (table 3).
        cardinality: Groups of each 3x3 convolution (section 3.2.1).
        family: ``res2net`` (default), or ``cifar`` for images of 32 pixels (section 4.3): a 3x3 stem of stride 1, three
            stages at most, and plain ResNeXt blocks as their first blocks.
        in_channels: Channels of the image.
        base_channels: Channels of the stem and planes of the first stage; each later stage has twice as many planes.
        out_indices: Stages whose output is returned, ascending; all by default. Later stages are not built.
        strides: Stride of each stage, (1, 2, 2, 2) by default.
        dilations: Dilation of each stage, 1 by default.
        output_stride: 8, 16 or 32: sets strides and dilations so that the last stage has this stride.
        multi_grid: Dilation of each block of the last stage (mmseg's convention: (2, 4, 8) is DeepLab's grid (1, 2, 4)
            at rate 2).
        contract_dilation: The first block of a dilated stage takes half the dilation; so a network trained with strides
            computes the same features, at more pixels. By default on with ``output_stride``, else off as in mmseg.
        stage_pool: What happens to the last split in the first block of a stage. ``official``: average pooling with the
            stride of the stage, also stride 1 (official weights, timm, mmpretrain). ``mmdet``: the same, but none with
            stride 1 (mmdet's weights). ``maskrcnn``: the first 1x1 convolution has the stride, the pooling has stride 1
            (the paper's Mask R-CNN runs, table 8, in maskrcnn-benchmark).
        deep_stem: Three 3x3 convolutions instead of one 7x7; by default as the arch has it.
        avg_down: Average pooling in the shortcut; by default as the arch has it.
        se_reduction: Squeeze-and-excitation with this reduction; by default as the arch has it.
        conv_cfg: MMCV's convolution config, for all but deformable convolutions.
        norm_cfg: MMCV's norm config; batch norm by default. GN's usual 32 groups do not divide the splits, see
            :class:`mmres2net.models.layers.GCDGroupNorm`.
        norm_eval: Keep all batch norms on their running statistics in training.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 at the first.
        dcn: MMCV's deformable convolution config for the 3x3 convolutions, such as
            ``dict(type='DCNv2', deform_groups=1)``; ``fallback_on_stride=True`` keeps strided ones plain.
        stage_with_dcn: Which stages use ``dcn``, a bool per stage.
        plugins: ``dict(cfg=..., position=..., stages=(...))`` as in mmdet; positions ``after_conv1``, ``after_conv2``
            and ``after_conv3``, the last after the norm and before the addition.
        zero_init_residual: Initialize the last norm's weight of each block with 0, so that the block starts as its
            shortcut.
        with_cp: Recompute blocks in the backward pass instead of storing their activations; gradients and running
            statistics are the same.
        init_cfg: MMEngine's initialization config; Kaiming normal (fan out) by default.

    Attributes:
        out_channels: Channels of each output.
        out_strides: Stride of each output against the image.

    A ValueError names an option with a value that is not allowed, and says what is.
    """

    def __init__(
        self, arch: str | None = None, *, depths: Sequence[int] | None = None, base_width: int | None = None,
        scales: int | None = None, cardinality: int | None = None, family: Family | None = None, in_channels: int = 3,
        base_channels: int = 64, out_indices: Sequence[int] | None = None, strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None, output_stride: int | None = None,
        multi_grid: Sequence[int] | None = None, contract_dilation: bool | None = None,
        stage_pool: StagePool = 'official', deep_stem: bool | None = None, avg_down: bool | None = None,
        se_reduction: int | None = None, conv_cfg: Cfg | None = None, norm_cfg: Cfg | None = None,
        norm_eval: bool = False, frozen_stages: int = -1, drop_path_rate: float = 0.0,
        dcn: Cfg | None = None, stage_with_dcn: Sequence[bool] | None = None, plugins: Sequence[Cfg] | None = None,
        zero_init_residual: bool = False, with_cp: bool = False, init_cfg: InitCfg = None,
    ) -> None:  # fmt: skip
        spec = opts.resolve_arch(
            arch, depths, base_width, scales, cardinality, family, deep_stem, avg_down, se_reduction
        )
        num_stages = len(spec.depths)
        out_indices = opts.resolve_out_indices(out_indices, num_stages)
        num_built = out_indices[-1] + 1
        opts.check_choice('stage_pool', stage_pool, STAGE_POOLS)
        drop_paths = opts.drop_path_rates(sum(spec.depths), drop_path_rate)
        super().__init__(frozen_stages, norm_eval, init_cfg)
        plans = opts.plan_stages(
            spec.depths, strides, dilations, output_stride, multi_grid, contract_dilation, num_built
        )
        self.out_indices = out_indices
        self.zero_init_residual = zero_init_residual
        options = BlockOptions(conv_cfg, norm_cfg, with_cp, stage_pool)
        opts.check_int('base_channels', base_channels, -(-64 // spec.base_width))  # a split has a channel or more
        self._build_stem(spec, opts.check_int('in_channels', in_channels, 1), base_channels, options)
        stage_dcn = opts.dcn_by_stage(dcn, stage_with_dcn, num_stages)
        stage_plugins = opts.plugins_by_stage(plugins, num_stages)
        self.stage_names = tuple(f'layer{i + 1}' for i in range(num_built))
        channels, planes = base_channels, [base_channels * 2**i for i in range(num_stages)]
        for i, name in enumerate(self.stage_names):
            stage_options = replace(options, dcn=stage_dcn[i], plugins=stage_plugins[i])
            self.add_module(name, build_stage(spec, plans[i], channels, planes[i], stage_options, drop_paths))
            channels = planes[i] * EXPANSION
        self.out_channels = tuple(planes[i] * EXPANSION for i in out_indices)
        stem_stride = 1 if spec.family == 'cifar' else 4
        totals = list(accumulate((plan.stride for plan in plans), mul, initial=stem_stride))
        self.out_strides = tuple(totals[i + 1] for i in out_indices)
        self.freeze()

    def _build_stem(self, spec: Arch, in_channels: int, channels: int, options: BlockOptions) -> None:
        small = spec.family == 'cifar'
        stride = 1 if small else 2
        if spec.deep_stem:
            half = channels // 2
            first, second = (options.conv(*shape) for shape in ((in_channels, half, 3, stride), (half, half, 3)))
            norms = options.norm(half), options.norm(half)
            layers = [first, norms[0], nn.ReLU(inplace=True), second, norms[1], nn.ReLU(inplace=True)]
            self.conv1: nn.Module = nn.Sequential(*layers, options.conv(half, channels, 3))
        else:
            self.conv1 = options.conv(in_channels, channels, 3 if small else 7, stride)
        self.bn1 = options.norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)

    def stem_modules(self) -> list[nn.Module]:
        return [self.conv1, self.bn1]

    def stem(self, x: Tensor) -> Tensor:
        """Return (N, 64, H/4, W/4), the first stage's input (H, W in the CIFAR family), for (N, in_channels, H, W)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def init_zeros(self) -> None:
        """Set to zero the offsets of deformable convolutions and, with ``zero_init_residual``, each last norm."""
        super().init_zeros()
        if self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, Bottle2neck):
                    nn.init.zeros_(module.bn3.get_parameter('weight'))


def build_stage(
    spec: Arch, plan: StagePlan, in_channels: int, planes: int, options: BlockOptions,
    drop_paths: Iterator[float] | None = None,
) -> nn.Sequential:  # fmt: skip
    """Return a stage of 4 ``planes`` output channels; ``drop_paths`` gives the drop probability of each block."""
    width = planes * spec.base_width // 64 * spec.cardinality
    out_channels = planes * EXPANSION
    stage = nn.Sequential()
    for i, dilation in enumerate(plan.dilations):
        first = i == 0
        shape: Cfg = {'width': width, 'scales': spec.scales, 'cardinality': spec.cardinality}
        se_reduction = spec.se_reduction
        if first and spec.family == 'cifar':
            # The parameter counts of table 4 fit only if a stage starts with a plain ResNeXt block of the same width.
            shape = {'width': width * spec.scales, 'scales': 1, 'cardinality': spec.cardinality * spec.scales}
            se_reduction = None
        if first:
            shape |= {
                'stride': plan.stride,
                'downsample': _build_shortcut(spec, plan, in_channels, out_channels, options),
            }
        shape |= {'drop_path': next(drop_paths) if drop_paths else 0.0, 'se_reduction': se_reduction}
        inputs = in_channels if first else out_channels
        stage.append(Bottle2neck(inputs, out_channels, **shape, dilation=dilation, is_first=first, options=options))
    return stage


def _build_shortcut(
    spec: Arch, plan: StagePlan, in_channels: int, out_channels: int, options: BlockOptions
) -> nn.Sequential:
    conv = options.conv(in_channels, out_channels, stride=1 if spec.avg_down else plan.stride)
    norm = options.norm(out_channels)
    if not spec.avg_down:
        return nn.Sequential(conv, norm)
    pool: nn.Module = nn.Identity()
    if plan.stride != 1:
        pool = nn.AvgPool2d(plan.stride, plan.stride, ceil_mode=True, count_include_pad=False)
    elif plan.is_dilated and options.stage_pool != 'mmdet':
        # The weights were trained on the mean of 2x2 pixels: at stride 1, this is the same mean at every pixel.
        pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1))
    return nn.Sequential(pool, conv, norm)
