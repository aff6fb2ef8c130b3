"""The last stage of a Res2Net as the shared head of Faster R-CNN without a feature pyramid ("C4").

Ren et al., "Faster R-CNN", 2015, on a residual network as in He et al., "Deep Residual Learning", 2015: the first three
residual stages are the backbone, regions are cropped from their output, and the fourth stage processes each region.
"""

from collections.abc import Sequence

from torch import Tensor

from mmres2net.models.layers import BlockOptions, Cfg, FreezableBackbone, InitCfg
from mmres2net.models.options import STAGE_POOLS, StagePlan, StagePool, check_choice, check_int, resolve_arch
from mmres2net.models.res2net import EXPANSION, STAGE_PLANES, build_stage
from mmres2net.registry import MODELS


@MODELS.register_module()
class Res2LayerHead(FreezableBackbone):
    """One stage of a Res2Net on the features of regions, for ``roi_head.shared_head`` of mmdet's two-stage detectors.

    Its parameters are named as in the backbone (``layer4.0.conv1.weight`` ...), so that ``init_cfg`` can name the
    checkpoint of the backbone; each loads its part.

    Args:
        arch, depths, base_width, scales, cardinality, avg_down, se_reduction, stage_pool: Those of the backbone.
        stage: Index of the stage, from 0; 3 is ``layer4``.
        stride: Stride of the stage.
        dilation: Dilation of its 3x3 convolutions.
        conv_cfg, norm_cfg, norm_eval, dcn, with_cp, init_cfg: As in :class:`Res2Net`.

    Attributes:
        in_channels, out_channels: Channels of its input and output.
    """

    def __init__(
        self, arch: str | None = None, *, depths: Sequence[int] | None = None, base_width: int | None = None,
        scales: int | None = None, cardinality: int | None = None, avg_down: bool | None = None,
        se_reduction: int | None = None, stage: int = 3, stride: int = 2, dilation: int = 1,
        stage_pool: StagePool = 'official', conv_cfg: Cfg | None = None, norm_cfg: Cfg | None = None,
        norm_eval: bool = True, dcn: Cfg | None = None, with_cp: bool = False, init_cfg: InitCfg = None,
    ) -> None:  # fmt: skip
        spec = resolve_arch(arch, depths, base_width, scales, cardinality, avg_down=avg_down, se_reduction=se_reduction)
        check_choice('stage_pool', stage_pool, STAGE_POOLS)
        check_choice('stage', stage, range(1, len(spec.depths)))
        super().__init__(-1, norm_eval, init_cfg)
        dilations = (check_int('dilation', dilation, 1),) * spec.depths[stage]
        self.in_channels = STAGE_PLANES[stage - 1] * EXPANSION
        self.out_channels = STAGE_PLANES[stage] * EXPANSION
        self.stage_names = (f'layer{stage + 1}',)
        plan = StagePlan(check_int('stride', stride, 1), dilations, dilation > 1)
        options = BlockOptions(conv_cfg, norm_cfg, with_cp, stage_pool, dcn)
        self.add_module(self.stage_names[0], build_stage(spec, plan, self.in_channels, STAGE_PLANES[stage], options))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return (R, out_channels, H/stride, W/stride) for the features ``x`` (R, in_channels, H, W) of R regions."""
        return self.stage_modules()[0](x)
