"""Raw pixels into what a network is fed with: inside the exported graph, so that nobody can get it wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.data.layout import dataset_of_test
from mmres2net.errors import UserError


@dataclass(frozen=True)
class Padding:
    """How images are padded, at the right and at the bottom, with the value 0 of normalised pixels or another.

    Args:
        divisor: Height and width become a multiple of it.
        least: Height and width at least; None: any.
        value: What is padded with, after the normalisation.
    """

    divisor: int = 1
    least: tuple[int, int] | None = None
    value: float = 0.0


class Pixels(nn.Module):
    """Normalise and pad RGB pixels of 0 to 255.

    Args:
        mean, std: Of each channel, in the network's order.
        swap: Whether that is BGR.
        padding: How images are padded.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, swap: bool, padding: Padding) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('scale', 1 / torch.tensor(std).view(1, -1, 1, 1))
        self.swap, self.padding = swap, padding

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, 3, H', W') float for ``image`` (N, 3, H, W) uint8, where H' and W' are H and W padded."""
        x = image.float()
        if self.swap:
            x = x.flip(1)
        x = (x - self.mean) * self.scale
        height, width = image.shape[2], image.shape[3]
        divisor, least = self.padding.divisor, self.padding.least
        if least is not None:
            # Not max(): the size may be a symbol of the trace, which has no truth value.
            return functional.pad(x, (0, _lack(least[1], width), 0, _lack(least[0], height)), value=self.padding.value)
        if divisor == 1:
            return x
        bottom = (height + divisor - 1) // divisor * divisor - height
        right = (width + divisor - 1) // divisor * divisor - width
        return functional.pad(x, (0, right, 0, bottom), value=self.padding.value)


def _lack(least: int, size: int) -> int:
    """Return how many pixels there are too few, in operations that a trace can follow."""
    if isinstance(size, Tensor):
        return (least - size).clamp(min=0)
    return torch.sym_max(least - size, 0)


def pixels_of(cfg: Config, *, pad: bool) -> Pixels:
    """Return what the data preprocessor of ``cfg`` does to RGB pixels.

    Args:
        cfg: The config; its images are read as BGR, MMCV's default, unless its pipeline says otherwise.
        pad: Whether to pad as in testing.

    Raises:
        UserError: There is no data preprocessor, or one that normalises in another way.
    """
    node = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if not node or not node.get('mean') or not node.get('std'):
        raise UserError(
            'model.data_preprocessor has no mean and std, so the export cannot take raw pixels; give it both'
        )
    mean, std = list(node.mean), list(node.std)
    if len(mean) != 3 or len(std) != 3:
        raise UserError(f'model.data_preprocessor.mean={mean}, std={std}: images of three channels are exported alone')
    turned = any(node.get(flag) for flag in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
    return Pixels(mean, std, swap=turned == reads_rgb(cfg), padding=padding_of(node) if pad else Padding())


def padding_of(node: dict) -> Padding:
    """Return how a data preprocessor pads test images."""
    value = float(node.get('pad_value', node.get('pad_val', 0)))
    test = node.get('test_cfg') or {}
    if test.get('size'):
        height, width = test['size']
        return Padding(least=(int(height), int(width)), value=value)
    return Padding(divisor=int(test.get('size_divisor') or node.get('pad_size_divisor') or 1), value=value)


def reads_rgb(cfg: Config) -> bool:
    """Whether the test pipeline of ``cfg`` reads images as RGB instead of BGR."""
    return any(step.get('channel_order') == 'rgb' for step in steps_of_test(cfg))


def steps_of_test(cfg: Config) -> list[dict]:
    """Return the steps that the config takes with a test image; none where it has no test data."""
    return [dict(step) for step in dataset_of_test(cfg).get('pipeline') or []]
