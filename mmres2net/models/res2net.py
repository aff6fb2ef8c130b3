"""Res2Net, Res2NeXt, SE-Res2Net and the CIFAR variants as one backbone.

Paper: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2021, https://arxiv.org/abs/1904.01169.
Written from the paper and from the published weights' names and shapes; parameters are named as in those weights.

Where the paper and the published weights disagree, the weights decide. Equation (1) leaves the *first* split alone,
the weights were trained with the *last* one left alone. And the paper is silent on the first block of a stage: there
the splits do not feed each other, all 3x3 convolutions carry the stride and the last split is average-pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmcv.cnn import build_conv_layer, build_plugin_layer
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

from mmres2net.models.arch import Arch, Family
from mmres2net.models.layers import (
    Cfg,
    FreezableBackbone,
    SqueezeExcite,
    build_conv3x3,
    build_norm,
    checkpointed,
    default_init_cfg,
    gradients_wanted,
)
from mmres2net.models.options import (
    PLUGIN_POSITIONS,
    StagePlan,
    check_choices,
    check_frozen_stages,
    check_int,
    dcn_by_stage,
    drop_path_by_stage,
    plan_stages,
    plugins_by_stage,
    resolve_arch,
    resolve_out_indices,
    strides_of,
)
from mmres2net.registry import MODELS

StagePool = Literal['official', 'mmdet', 'maskrcnn']
EXPANSION = 4
STAGE_PLANES = (64, 128, 256, 512)


class Bottle2neck(nn.Module):
    """The Res2Net module (section 3.1, figure 2b): a bottleneck whose 3x3 convolution works on s splits in turn.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        width: Channels of one split.
        scales: Number of splits s; 1 is a plain bottleneck.
        cardinality: Groups of each 3x3 convolution.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolutions.
        is_first: The block opens a stage: its splits do not feed each other.
        stage_pool: What a stage's first block does with its last split and its stride, see :class:`Res2Net`.
        downsample: What the shortcut does to the input; None: nothing.
        se_reduction: Reduction of the squeeze-and-excitation; None: no such module.
        drop_path: Probability of dropping the block's branch for a sample in training.
        conv_cfg, norm_cfg: MMCV's configs of convolution and norm.
        dcn: MMCV's config of the deformable convolution that replaces the 3x3 ones; None: plain ones.
        plugins: MMCV's plugin configs, each with its ``position``.
        with_cp: Recompute the block in the backward pass instead of storing it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        scales: int,
        cardinality: int = 1,
        stride: int = 1,
        dilation: int = 1,
        is_first: bool = False,
        stage_pool: StagePool = 'official',
        downsample: nn.Module | None = None,
        se_reduction: int | None = None,
        drop_path: float = 0.0,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = None,
        dcn: Cfg | None = None,
        plugins: Sequence[Cfg] = (),
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        norm_cfg = {'type': 'BN'} if norm_cfg is None else norm_cfg
        self.width, self.is_first, self.with_cp, self.with_dcn = width, is_first, with_cp, dcn is not None
        stride1, stride3 = (stride, 1) if stage_pool == 'maskrcnn' else (1, stride)

        self.conv1 = build_conv_layer(conv_cfg, in_channels, width * scales, 1, stride=stride1, bias=False)
        self.bn1 = build_norm(norm_cfg, width * scales)
        self.convs = nn.ModuleList(
            build_conv3x3(conv_cfg, width, stride=stride3, dilation=dilation, groups=cardinality, dcn=dcn)
            for _ in range(max(scales - 1, 1))
        )
        self.bns = nn.ModuleList(build_norm(norm_cfg, width) for _ in self.convs)
        pooled = scales > 1 and is_first and (stage_pool != 'mmdet' or stride != 1)
        # Counts the padding, unlike the shortcut's pool: both are what the weights were trained with.
        self.pool = nn.AvgPool2d(3, stride3, padding=1) if pooled else nn.Identity()
        self.conv3 = build_conv_layer(conv_cfg, width * scales, out_channels, 1, bias=False)
        self.bn3 = build_norm(norm_cfg, out_channels)
        self.se = SqueezeExcite(out_channels, se_reduction) if se_reduction else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.relu = nn.ReLU(inplace=True)
        channels = dict(zip(PLUGIN_POSITIONS, (width * scales, width * scales, out_channels), strict=True))
        self.after_conv1, self.after_conv2, self.after_conv3 = (
            _build_plugins([plugin for plugin in plugins if plugin['position'] == position], channels[position])
            for position in PLUGIN_POSITIONS
        )

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W).

        ``shortcut`` (of the output's shape) takes the place of the block's own, as deep layer aggregation needs it.
        """
        if self.with_cp and gradients_wanted():
            return checkpointed(self, self._forward, x, shortcut)
        return self._forward(x, shortcut)

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
        out_indices: Stages whose output is returned, ascending; all by default. Later stages are not built.
        strides: Stride of each stage, (1, 2, 2, 2) by default.
        dilations: Dilation of each stage, 1 by default.
        output_stride: 8, 16 or 32: sets strides and dilations so that the last stage has this stride.
        multi_grid: Dilations of the last stage's blocks themselves, one per block (mmseg's convention: (2, 4, 8) is
            DeepLab's grid (1, 2, 4) at rate 2).
        contract_dilation: The first block of a dilated stage takes half the dilation, which is what a network trained
            with strides computes when it is read densely. By default on with ``output_stride``, else off as in mmseg.
        stage_pool: The last split of a stage's first block. ``official``: average-pooled with the stride, also where
            that is 1 (official weights, timm, mmpretrain). ``mmdet``: pooled only where strided (mmdet's weights).
            ``maskrcnn``: the stride sits in the first 1x1 convolution and the pool has stride 1 (the paper's
            Mask R-CNN runs, table 8, in maskrcnn-benchmark).
        deep_stem: Three 3x3 convolutions instead of one 7x7; by default as the arch has it.
        avg_down: Average pooling in the shortcut; by default as the arch has it.
        se_reduction: Squeeze-and-excitation with this reduction; by default as the arch has it.
        conv_cfg: MMCV's convolution config, for all but deformable convolutions.
        norm_cfg: MMCV's norm config.
        norm_eval: Keep all batch norms on their running statistics in training.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        freeze_stem: Freezes or spares the stem whatever ``frozen_stages`` says.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 at the first.
        dcn: MMCV's deformable convolution config for the 3x3 convolutions, such as
            ``dict(type='DCNv2', deform_groups=1)``; ``fallback_on_stride=True`` keeps strided ones plain.
        stage_with_dcn: Which stages use ``dcn``, a bool per stage.
        plugins: ``dict(cfg=..., position=..., stages=(...))`` as in mmdet; positions ``after_conv1``, ``after_conv2``
            and ``after_conv3``, the last after the norm and before the addition.
        zero_init_residual: Start each block as the identity (last norm's weight 0).
        with_cp: Recompute blocks in the backward pass instead of storing them; exact, running statistics included.
        init_cfg: MMEngine's initialisation config; Kaiming normal (fan out) by default.

    Attributes:
        out_channels: Channels of each output.
        out_strides: Stride of each output against the image.

    Raises:
        ValueError: An option has a value outside of what is listed here; the message says what is allowed.
    """

    def __init__(
        self,
        arch: str | None = None,
        *,
        depths: Sequence[int] | None = None,
        base_width: int | None = None,
        scales: int | None = None,
        cardinality: int | None = None,
        family: Family | None = None,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        output_stride: int | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool | None = None,
        stage_pool: StagePool = 'official',
        deep_stem: bool | None = None,
        avg_down: bool | None = None,
        se_reduction: int | None = None,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        freeze_stem: bool | None = None,
        drop_path_rate: float = 0.0,
        dcn: Cfg | None = None,
        stage_with_dcn: Sequence[bool] | None = None,
        plugins: Sequence[Cfg] | None = None,
        zero_init_residual: bool = False,
        with_cp: bool = False,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        row = resolve_arch(arch, depths, base_width, scales, cardinality, deep_stem, avg_down, se_reduction, family)
        check_choices(row, stage_pool, drop_path_rate)
        num_stages = len(row.depths)
        self.out_indices = resolve_out_indices(out_indices, num_stages)
        built = self.out_indices[-1] + 1
        super().__init__(
            frozen_stages=check_frozen_stages(frozen_stages, built),
            freeze_stem=freeze_stem,
            norm_eval=norm_eval,
            init_cfg=default_init_cfg() if init_cfg is None else init_cfg,
        )
        plans = plan_stages(
            row.depths,
            (1, 2, 2, 2)[:num_stages],
            strides=strides,
            dilations=dilations,
            output_stride=output_stride,
            multi_grid=multi_grid,
            contract_dilation=contract_dilation,
            built=built,
        )
        self.zero_init_residual = zero_init_residual
        norm_cfg = {'type': 'BN'} if norm_cfg is None else norm_cfg
        self._build_stem(row, check_int('in_channels', in_channels, 1), conv_cfg, norm_cfg)
        stage_dcn = dcn_by_stage(dcn, stage_with_dcn, num_stages)
        stage_plugins = plugins_by_stage(plugins, num_stages)
        drop_paths = drop_path_by_stage(row.depths, drop_path_rate)
        common = {'stage_pool': stage_pool, 'conv_cfg': conv_cfg, 'norm_cfg': norm_cfg, 'with_cp': with_cp}
        channels = 64
        for i in range(built):
            options = {**common, 'dcn': stage_dcn[i], 'plugins': stage_plugins[i]}
            stage = build_stage(row, plans[i], channels, STAGE_PLANES[i], drop_paths[i], options)
            self.add_module(f'layer{i + 1}', stage)
            channels = STAGE_PLANES[i] * EXPANSION
        self.out_channels = tuple(STAGE_PLANES[i] * EXPANSION for i in self.out_indices)
        self.out_strides = strides_of(plans, 1 if row.family == 'cifar' else 4, self.out_indices)
        self.freeze()

    def _build_stem(self, row: Arch, in_channels: int, conv_cfg: Cfg | None, norm_cfg: Cfg) -> None:
        def conv(channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
            padding = kernel // 2
            return build_conv_layer(
                conv_cfg, channels, out_channels, kernel, stride=stride, padding=padding, bias=False
            )

        small = row.family == 'cifar'
        stride = 1 if small else 2
        if row.deep_stem:
            self.conv1: nn.Module = nn.Sequential(
                conv(in_channels, 32, 3, stride),
                build_norm(norm_cfg, 32),
                nn.ReLU(inplace=True),
                conv(32, 32, 3, 1),
                build_norm(norm_cfg, 32),
                nn.ReLU(inplace=True),
                conv(32, 64, 3, 1),
            )
        else:
            self.conv1 = conv(in_channels, 64, 3 if small else 7, stride)
        self.bn1 = build_norm(norm_cfg, 64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)

    def stem_modules(self) -> list[nn.Module]:
        return [self.conv1, self.bn1]

    def stage_modules(self) -> list[nn.Module]:
        return [self.get_submodule(f'layer{i + 1}') for i in range(self.out_indices[-1] + 1)]

    def init_zeros(self) -> None:
        """Set to zero the offsets of deformable convolutions and, if asked for, each block's last norm."""
        super().init_zeros()
        if self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, Bottle2neck):
                    nn.init.constant_(module.bn3.get_parameter('weight'), 0)

    def stem(self, x: Tensor) -> Tensor:
        """Return (N, 64, H/4, W/4), the first stage's input (H, W in the CIFAR family), for (N, in_channels, H, W)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) for each stage i of ``out_indices``, for ``x`` (N, in_channels, H, W)."""
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stage_modules()):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


def build_stage(
    row: Arch, plan: StagePlan, in_channels: int, planes: int, drop_paths: Sequence[float], options: Cfg
) -> nn.Sequential:
    """Return one stage; ``options`` are keywords of :class:`Bottle2neck` that its blocks share."""
    width = planes * row.base_width // 64 * row.cardinality
    out_channels = planes * EXPANSION
    blocks = []
    for i, (dilation, drop_path) in enumerate(zip(plan.dilations, drop_paths, strict=True)):
        first = i == 0
        shape: Cfg = {'width': width, 'scales': row.scales, 'cardinality': row.cardinality}
        se_reduction = row.se_reduction
        if first and row.family == 'cifar':
            # The parameter counts of table 4 fit only if a stage opens with a plain ResNeXt block of the same width.
            shape = {'width': width * row.scales, 'scales': 1, 'cardinality': row.cardinality * row.scales}
            se_reduction = None
        blocks.append(
            Bottle2neck(
                in_channels if first else out_channels,
                out_channels,
                **shape,
                stride=plan.stride if first else 1,
                dilation=dilation,
                is_first=first,
                downsample=_build_shortcut(row, plan, in_channels, out_channels, options) if first else None,
                se_reduction=se_reduction,
                drop_path=drop_path,
                **options,
            )
        )
    return nn.Sequential(*blocks)


def _build_shortcut(row: Arch, plan: StagePlan, in_channels: int, out_channels: int, options: Cfg) -> nn.Sequential:
    conv_stride = 1 if row.avg_down else plan.stride
    conv = build_conv_layer(options['conv_cfg'], in_channels, out_channels, 1, stride=conv_stride, bias=False)
    norm = build_norm(options['norm_cfg'], out_channels)
    if not row.avg_down:
        return nn.Sequential(conv, norm)
    return nn.Sequential(_shortcut_pool(plan, options['stage_pool']), conv, norm)


def _shortcut_pool(plan: StagePlan, stage_pool: StagePool) -> nn.Module:
    if plan.stride != 1:
        return nn.AvgPool2d(plan.stride, plan.stride, ceil_mode=True, count_include_pad=False)
    if plan.is_dilated and stage_pool != 'mmdet':
        # The weights saw the mean of 2x2 pixels: read densely, that is the same mean at every pixel.
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1))
    return nn.Identity()
