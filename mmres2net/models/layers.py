"""Layers shared by the backbones: norms, convolutions, squeeze-and-excitation, checkpointing, freezing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmres2net.init_cfg import loads_weights
from mmres2net.models.options import StagePool, check_choice
from mmres2net.registry import MODELS

Cfg = dict[str, Any]
InitCfg = Cfg | list[Cfg] | None


@dataclass(frozen=True)
class BlockOptions:
    """Options that the blocks of a network share, as in :class:`mmres2net.models.Res2Net`."""

    conv_cfg: Cfg | None = None  # None: plain convolutions
    norm_cfg: Cfg | None = None  # None: batch norm
    with_cp: bool = False
    stage_pool: StagePool = 'official'
    dcn: Cfg | None = None  # None: plain 3x3 convolutions
    plugins: Sequence[Cfg] = ()

    def conv(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> Any:
        """Return a convolution without bias that keeps the size divided by ``stride``."""
        return build_conv_layer(
            self.conv_cfg, in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )

    def conv3x3(self, channels: int, *, stride: int, dilation: int, groups: int) -> Any:
        """Return a 3x3 convolution that keeps the channels; deformable by ``dcn``."""
        cfg = self.conv_cfg
        if self.dcn is not None:
            import mmcv.ops  # noqa: F401 - registers the deformable convolutions; slow to import and needed only here

            deformable = dict(self.dcn)
            if not (deformable.pop('fallback_on_stride', False) and stride != 1):
                cfg = deformable
        conv = build_conv_layer(
            cfg, channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        offset = getattr(conv, 'conv_offset', None)
        if isinstance(offset, nn.Module):
            # mmcv reads the offsets as if they were contiguous; in a channels_last network they are not
            offset.register_forward_hook(_contiguous)
        return conv

    def norm(self, channels: int) -> nn.Module:
        """Return a norm layer; a ValueError if it is a GN whose ``num_groups`` does not divide the channels."""
        cfg: Cfg = {'type': 'BN'} if self.norm_cfg is None else self.norm_cfg
        groups = cfg.get('num_groups', 1)
        if cfg['type'] in ('GN', nn.GroupNorm) and channels % groups:
            what = f'norm_cfg={cfg}: {groups} groups do not divide {channels} channels'
            raise ValueError(f"{what}; use type='mmres2net.GCDGroupNorm', or 2 groups for a base width of 26")
        return build_norm_layer(dict(cfg), channels)[1]


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous()


@MODELS.register_module()
class GCDGroupNorm(nn.GroupNorm):
    """Group norm for widths that ``num_groups`` does not divide, as the splits of Res2Net (26, 52, ... channels).

    The number of groups is the greatest common divisor of ``num_groups`` and the channels: 32 groups become 2, 4, 8 and
    16 groups of 13 channels in the four stages of a base width of 26. 32 groups as in Wu and He, "Group Normalization",
    ECCV 2018; the other arguments are those of ``torch.nn.GroupNorm``.
    """

    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(gcd(num_groups, num_channels), num_channels, eps=eps, affine=affine)


class SqueezeExcite(nn.Module):
    """Channel attention of Hu et al. 2018 with the parameter names of timm (``fc1``, ``fc2``)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if channels < reduction:
            raise ValueError(f'se_reduction={reduction} leaves no channel of {channels}; choose {channels} or less')
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) with each channel scaled by a gate in (0, 1)."""
        gate = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * self.fc2(self.fc1(gate).relu()).sigmoid()


def checkpointed(module: nn.Module, forward: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """Run ``forward`` and recompute it in the backward pass, without updating running statistics of ``module`` twice.

    Without gradients, and in a trace, ``forward`` runs alone: storing nothing would save nothing.
    """
    if not torch.is_grad_enabled() or torch.jit.is_tracing():
        return forward(*inputs)
    if torch.compiler.is_compiling():
        # The compiler takes no context function; it recomputes operations and keeps updates of buffers out of that.
        return checkpoint(forward, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _constant_statistics(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _constant_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    counters = [(count, count.clone()) for norm in norms if (count := norm.num_batches_tracked) is not None]
    for norm in norms:
        norm.momentum = 0.0  # not track_running_stats: the recomputation must save as many tensors as the forward pass
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for counter, before in counters:
            counter.copy_(before)


class FreezableBackbone(BaseModule):
    """A stem and stages that can be frozen: they have no gradients, and their norms keep their statistics.

    A subclass sets ``stage_names`` and ``out_indices``, and calls :meth:`freeze` at the end of its constructor. The
    arguments are those of :class:`mmres2net.models.Res2Net`.
    """

    stage_names: tuple[str, ...]
    out_indices: tuple[int, ...]

    def __init__(self, frozen_stages: int, norm_eval: bool, init_cfg: InitCfg) -> None:
        super().__init__(default_init_cfg() if init_cfg is None else init_cfg)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def stem_modules(self) -> list[nn.Module]:
        """Return the modules before the first stage."""
        return []

    def stage_modules(self) -> list[nn.Module]:
        """Return the stages that were built."""
        return [getattr(self, name) for name in self.stage_names]

    def stem(self, x: Tensor) -> Tensor:
        """Return the input of the first stage for images (N, C, H, W)."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) for each stage i of ``out_indices``, for ``x`` (N, in_channels, H, W)."""
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stage_modules()):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules that ``frozen_stages`` freezes."""
        return [*self.stem_modules(), *self.stage_modules()[: self.frozen_stages]] if self.frozen_stages >= 0 else []

    def freeze(self) -> None:
        """Turn off the gradients of the frozen modules and set them to evaluation mode; ValueError: no such stage."""
        check_choice('frozen_stages', self.frozen_stages, range(-1, len(self.stage_names) + 1))
        for module in self.frozen_modules():
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'FreezableBackbone':
        """Set the mode of all modules but the frozen ones and, with ``norm_eval``, batch norms. Returns self."""
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, once; unless that loads weights, :meth:`init_zeros` follows."""
        first = not self.is_init
        super().init_weights()
        if first and not loads_weights(self.init_cfg):
            self.init_zeros()

    def init_zeros(self) -> None:
        """Set the offsets of deformable convolutions to zero: a regular grid (Dai et al. 2017, section 2.1)."""
        for module in self.modules():
            offset = getattr(module, 'conv_offset', None)
            if isinstance(offset, nn.Module):
                for parameter in offset.parameters():
                    nn.init.zeros_(parameter)


def default_init_cfg() -> list[Cfg]:
    """Return the initialization of the official release: Kaiming normal by fan out, norms at one."""
    norms = {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']}
    return [{'type': 'Kaiming', 'layer': 'Conv2d'}, norms]
