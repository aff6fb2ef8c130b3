"""The last stage of a Res2Net as the head that all regions share: Faster R-CNN without a feature pyramid ("C4").

Ren et al., "Faster R-CNN", 2015, as He et al., "Deep Residual Learning", 2015, put it on a residual network: the first
three residual stages are the backbone, regions are cut from their output, and the fourth stage works on each region.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmres2net.models.layers import Cfg, FreezableBackbone, default_init_cfg
from mmres2net.models.options import StagePlan, check_choices, check_int, resolve_arch
from mmres2net.models.res2net import EXPANSION, STAGE_PLANES, StagePool, build_stage
from mmres2net.registry import MODELS


@MODELS.register_module()
class Res2LayerHead(FreezableBackbone):
    """One stage of a Res2Net on the features of regions, for ``roi_head.shared_head`` of mmdet's two-stage detectors.

    Its parameters are named as in the backbone (``layer4.0.conv1.weight`` ...), so ``init_cfg`` names the checkpoint of
    the backbone and each takes its part.

    Args:
        arch: A name of :data:`ARCHS` or timm's name of the same network: the backbone's. Left out, the network is given
            by ``depths``, ``base_width``, ``scales`` and ``cardinality``.
        depths, base_width, scales, cardinality, avg_down, se_reduction: As in :class:`Res2Net`.
        stage: Which stage, counted from 0; 3 is ``layer4``.
        stride: Stride of the stage.
        dilation: Dilation of its 3x3 convolutions.
        stage_pool: As in :class:`Res2Net`; the same as the backbone's.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        norm_eval: Keep the batch norms on their running statistics in training.
        dcn: MMCV's deformable convolution config for the 3x3 convolutions; None: plain ones.
        with_cp: Recompute blocks in the backward pass instead of storing them.
        init_cfg: MMEngine's initialisation config; Kaiming normal (fan out) by default.

    Attributes:
        in_channels, out_channels: Channels of its input and output.

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
        avg_down: bool | None = None,
        se_reduction: int | None = None,
        stage: int = 3,
        stride: int = 2,
        dilation: int = 1,
        stage_pool: StagePool = 'official',
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = None,
        norm_eval: bool = True,
        dcn: Cfg | None = None,
        with_cp: bool = False,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        row = resolve_arch(arch, depths, base_width, scales, cardinality, None, avg_down, se_reduction)
        check_choices(row, stage_pool, 0.0)
        if stage not in range(1, len(row.depths)):
            raise ValueError(
                f'stage={stage!r} must be from 1 to {len(row.depths) - 1}: a stage counted from 0, after the backbone'
            )
        super().__init__(
            frozen_stages=-1,
            freeze_stem=None,
            norm_eval=norm_eval,
            init_cfg=default_init_cfg() if init_cfg is None else init_cfg,
        )
        depth, dilation = row.depths[stage], check_int('dilation', dilation, 1)
        self.stage = stage
        self.in_channels = STAGE_PLANES[stage - 1] * EXPANSION
        self.out_channels = STAGE_PLANES[stage] * EXPANSION
        options: Cfg = {
            'stage_pool': stage_pool,
            'conv_cfg': conv_cfg,
            'norm_cfg': {'type': 'BN'} if norm_cfg is None else norm_cfg,
            'with_cp': with_cp,
            'dcn': dcn,
            'plugins': [],
        }
        plan = StagePlan(check_int('stride', stride, 1), (dilation,) * depth, dilation > 1)
        blocks = build_stage(row, plan, self.in_channels, STAGE_PLANES[stage], [0.0] * depth, options)
        self.add_module(f'layer{stage + 1}', blocks)

    def stem_modules(self) -> list[nn.Module]:
        return []

    def stage_modules(self) -> list[nn.Module]:
        return [self.get_submodule(f'layer{self.stage + 1}')]

    def forward(self, x: Tensor) -> Tensor:
        """Return (R, out_channels, H/stride, W/stride) for the features ``x`` (R, in_channels, H, W) of R regions."""
        return self.get_submodule(f'layer{self.stage + 1}')(x)
