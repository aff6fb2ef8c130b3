"""A backbone that hands out its stem as well: DSS looks at the image at half its size, before the first pooling."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.registry import MODELS


@MODELS.register_module()
class WithStem(BaseModule):
    """The outputs of ``backbone`` with that of its stem before them.

    The stem's output is what the module named ``maxpool`` takes. The ResNets of mmdet, mmseg and mmpretrain have one,
    and so has :class:`mmres2net.models.Res2Net`: another backbone is one changed dict, and its weights, names, norms
    and freezing are its own business, as they are without this wrapper.

    Args:
        backbone: The config of the backbone.

    Raises:
        UserError: The backbone has no module ``maxpool``.
    """

    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = MODELS.build(copy.deepcopy(backbone))  # the hosts write into what they build from
        if not isinstance(getattr(self.backbone, 'maxpool', None), nn.Module):
            raise UserError(
                f'{type(self.backbone).__name__} has no module `maxpool` behind its stem, so mmres2net.WithStem cannot '
                'tell what its stem gives; use a ResNet or mmres2net.Res2Net'
            )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the stem's output, (N, 64, H/2, W/2) in the ImageNet families, then those of the stages.

        Args:
            x: Images (N, 3, H, W).
        """
        seen: list[Tensor] = []
        handle = self.backbone.maxpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            stages = self.backbone(x)
        finally:
            handle.remove()
        return (*seen, *stages)
