"""A backbone that also returns the output of its stem: DSS uses features of half the image's size."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.registry import MODELS


@MODELS.register_module()
class WithStem(BaseModule):
    """A backbone that returns the output of its stem, followed by those of its stages.

    The output of the stem is the input of the module ``maxpool``, which the ResNets of mmdet, mmseg and mmpretrain and
    :class:`mmres2net.models.Res2Net` have. Weights, names, norms and freezing are those of the backbone.

    Args:
        backbone: The config of the backbone.

    Raises:
        UserError: The backbone has no module ``maxpool``.
    """

    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = MODELS.build(copy.deepcopy(backbone))  # some libraries modify the config
        if not isinstance(getattr(self.backbone, 'maxpool', None), nn.Module):
            raise UserError(
                f'{type(self.backbone).__name__} has no module `maxpool`, which mmres2net.WithStem needs; use a ResNet '
                'or mmres2net.Res2Net'
            )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return for ``x`` (N, 3, H, W) the stem's output, (N, 64, H/2, W/2), then those of the stages."""
        seen: list[Tensor] = []
        handle = self.backbone.maxpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            stages = self.backbone(x)
        finally:
            handle.remove()
        return (*seen, *stages)
