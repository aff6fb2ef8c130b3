"""Raw pixels into the input of a network, inside the exported graph, so that users cannot get it wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.engine.pipeline import channel_order_of
from mmres2net.errors import UserError

ALIGNED = 'AlignedSegDataPreProcessor'
KINDS = ('ClsDataPreprocessor', 'DetDataPreprocessor', 'SegDataPreProcessor', ALIGNED)


@dataclass(frozen=True)
class Padding:
    """How test images are padded, at the right and at the bottom."""

    divisor: int = 1  # height and width become a multiple of it, plus `offset`
    offset: int = 0  # 1 for networks with aligned corners
    least: tuple[int, int] = (1, 1)  # height and width
    value: float = 0.0  # that is padded with, after the normalization

    def lack(self, size: int, axis: int) -> int:
        """Return how many pixels are added to ``size`` pixels in height (axis 0) or width (1); traces can follow it."""
        padded = (size - self.offset + self.divisor - 1) // self.divisor * self.divisor + self.offset
        if isinstance(padded, Tensor):
            return padded.clamp(min=self.least[axis]) - size
        return torch.sym_max(padded, self.least[axis]) - size


class Preprocess(nn.Module):
    """Normalize and pad RGB pixels of 0 to 255.

    Args:
        mean, std: Of each channel, in the network's channel order.
        swap: Whether that order is BGR.
        padding: How images are padded; None: not at all.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, swap: bool, padding: Padding | None) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1))
        self.swap, self.padding = swap, padding

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, 3, H', W') float for ``image`` (N, 3, H, W) uint8 RGB; H' and W' are H and W with padding."""
        x = image.float()
        x = ((x.flip(1) if self.swap else x) - self.mean) / self.std
        if self.padding is None or self.padding == Padding(value=self.padding.value):
            return x
        bottom, right = self.padding.lack(image.shape[2], 0), self.padding.lack(image.shape[3], 1)
        return functional.pad(x, (0, right, 0, bottom), value=self.padding.value)

    def fill(self) -> tuple[int, int, int]:
        """Return the mean pixel, RGB."""
        mean = [round(float(value)) for value in self.mean.flatten()]
        red, green, blue = mean[::-1] if self.swap else mean
        return red, green, blue


def preprocess_of(cfg: Config, *, pad: bool) -> Preprocess:
    """Return what the data preprocessor of ``cfg`` does to RGB pixels in testing, without padding unless ``pad``.

    A UserError says that it or the channel order of the images is unknown, or that images have not 3 channels.
    """
    node = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    kind = str(node.get('type', KINDS[0])).rpartition('.')[2]
    if kind not in KINDS:
        raise UserError(f'model.data_preprocessor.type={node["type"]!r}: supported are {", ".join(KINDS)}')
    if not node.get('mean') or not node.get('std'):
        raise UserError('model.data_preprocessor has no mean and std: set both, so that the file can take raw pixels')
    mean, std = list(node['mean']), list(node['std'])
    if len(mean) != 3 or len(std) != 3:
        raise UserError(
            f'model.data_preprocessor.mean={mean}, std={std}: only images of three channels can be exported'
        )
    converts = any(node.get(flag) for flag in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
    swap = converts == (channel_order_of(cfg) == 'rgb')
    return Preprocess(mean, std, swap=swap, padding=_padding(node, kind) if pad else None)


def _padding(node: dict[str, Any], kind: str) -> Padding:
    value = float(node.get('pad_value', node.get('pad_val', 0)))
    if kind == ALIGNED:
        return Padding(int(node.get('divisor', 16)), 1, _pair(node['size']), value)
    if kind == 'SegDataPreProcessor':
        test = node.get('test_cfg') or {}
        least = _pair(test['size']) if test.get('size') else (1, 1)
        return Padding(int(test.get('size_divisor') or 1), 0, least, value)
    return Padding(int(node.get('pad_size_divisor') or 1), value=value)


def _pair(size: Sequence[int]) -> tuple[int, int]:
    return int(size[0]), int(size[1])
