"""mmdet's feature pyramid in operations whose sizes every exporter can follow (Lin et al. 2017, figure 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class Pyramid(nn.Module):
    """The layers of an ``FPN`` of mmdet, which :func:`is_plain` has found to be without extra convolutions."""

    def __init__(self, neck: Any) -> None:
        super().__init__()
        self.lateral_convs, self.fpn_convs = neck.lateral_convs, neck.fpn_convs
        self.first, self.count = neck.start_level, neck.num_outs

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return ``count`` maps, each half as large as the one before, for the maps of a backbone."""
        maps = [conv(feature) for conv, feature in zip(self.lateral_convs, features[self.first :], strict=False)]
        for index in range(len(maps) - 1, 0, -1):
            size = (maps[index - 1].shape[2], maps[index - 1].shape[3])
            maps[index - 1] = maps[index - 1] + functional.interpolate(maps[index], size, mode='nearest')
        outs = [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=True)]
        while len(outs) < self.count:
            outs.append(outs[-1][:, :, ::2, ::2])  # a pool of one pixel
        return tuple(outs)


def is_plain(neck: Any) -> bool:
    """Whether a neck is an ``FPN`` that :class:`Pyramid` can stand for."""
    return type(neck).__name__ == 'FPN' and not neck.add_extra_convs and dict(neck.upsample_cfg) == {'mode': 'nearest'}
