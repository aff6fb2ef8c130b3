"""Wide ResNet and DenseNet-BC for images of 32 pixels, two networks that table 4 compares Res2Net with.

Papers: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146, and Huang et
al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993. Written from the papers.
The DenseNets of mmpretrain and timm start with a stem of stride 4, which is too much for images of 32 pixels.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmres2net.models.layers import InitCfg, checkpointed, default_init_cfg
from mmres2net.models.options import check_int
from mmres2net.registry import MODELS

STAGES = 3


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _blocks_per_stage(depth: int, layers: int) -> int:
    """Return the number of blocks of a stage; ``depth`` also counts the stem, transitions and classifier."""
    check_int('depth', depth, layers + 4)
    if (depth - 4) % layers:
        near = (depth - 4) // layers * layers + 4
        raise ValueError(f'depth={depth} must be 4 more than a multiple of {layers}, such as {near} or {near + layers}')
    return (depth - 4) // layers


class WideBlock(nn.Module):
    """A pre-activation block of two 3x3 convolutions (Zagoruyko and Komodakis, figure 1c)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, out_channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3)
        same = in_channels == out_channels and stride == 1
        self.shortcut = None if same else _conv(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H/stride, W/stride) for ``x`` (N, in_channels, H, W)."""
        active = self.bn1(x).relu_()
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(self.bn2(self.conv1(active)).relu_())


@MODELS.register_module()
class WideResNet(BaseModule):
    """Wide ResNet as a backbone, WRN-28-10 by default: the first row of table 4.

    Args:
        depth: Number of layers, 6 n + 4.
        widen_factor: The stages have 16, 32 and 64 times this many channels.
        init_cfg: MMEngine's initialization config; Kaiming normal (fan out) by default.

    Raises:
        ValueError: There is no such network of this depth or width.
    """

    def __init__(self, depth: int = 28, widen_factor: int = 10, *, init_cfg: InitCfg = None) -> None:
        super().__init__(default_init_cfg() if init_cfg is None else init_cfg)
        blocks = _blocks_per_stage(depth, 2 * STAGES)
        check_int('widen_factor', widen_factor, 1)
        channels = 16
        self.conv1 = _conv(3, channels, 3)
        stages = []
        for i in range(STAGES):
            out_channels, stage = 16 * 2**i * widen_factor, nn.Sequential()
            for j in range(blocks):
                stage.append(WideBlock(channels, out_channels, 2 if i and not j else 1))
                channels = out_channels
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(channels)
        self.out_channels = (channels,)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return a tuple of (N, 64 widen_factor, H/4, W/4) for ``x`` (N, 3, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return (self.bn1(x).relu_(),)


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, each after norm and ReLU; returns input and output (Huang et al., section 3)."""

    def __init__(self, in_channels: int, growth_rate: int, with_cp: bool) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, 4 * growth_rate, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = _conv(4 * growth_rate, growth_rate, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, in_channels + growth_rate, H, W) for ``x`` (N, in_channels, H, W)."""
        new = checkpointed(self, self._new, x) if self.with_cp else self._new(x)
        return torch.cat([x, new], 1)

    def _new(self, x: Tensor) -> Tensor:
        return self.conv2(self.bn2(self.conv1(self.bn1(x).relu_())).relu_())


class Transition(nn.Sequential):
    """Halves the channels and the size between two dense blocks."""

    def __init__(self, in_channels: int) -> None:
        conv = _conv(in_channels, in_channels // 2, 1)
        super().__init__(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), conv, nn.AvgPool2d(2))


@MODELS.register_module()
class DenseNetBC(BaseModule):
    """DenseNet-BC as a backbone, 190 layers and a growth rate of 40 by default: the fourth row of table 4.

    Args:
        depth: Number of layers, 6 n + 4.
        growth_rate: Channels k that each layer adds.
        with_cp: Recompute layers in the backward pass instead of storing their activations, as in :class:`Res2Net`.
        init_cfg: MMEngine's initialization config; Kaiming normal (fan out) by default.

    Raises:
        ValueError: There is no such network of this depth or growth rate.
    """

    def __init__(
        self, depth: int = 190, growth_rate: int = 40, *, with_cp: bool = False, init_cfg: InitCfg = None
    ) -> None:
        super().__init__(default_init_cfg() if init_cfg is None else init_cfg)
        layers = _blocks_per_stage(depth, 2 * STAGES)
        channels = 2 * check_int('growth_rate', growth_rate, 1)
        self.conv1 = _conv(3, channels, 3)
        for i in range(STAGES):
            if i:
                self.add_module(f'transition{i}', Transition(channels))
                channels //= 2
            widths = range(channels, channels + layers * growth_rate, growth_rate)
            self.add_module(f'block{i + 1}', nn.Sequential(*(DenseLayer(w, growth_rate, with_cp) for w in widths)))
            channels += layers * growth_rate
        self.bn1 = nn.BatchNorm2d(channels)
        self.out_channels = (channels,)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return a tuple of (N, C, H/4, W/4) for ``x`` (N, 3, H, W)."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        return (self.bn1(x).relu_(),)
