"""Parts shared by the backbones: norms, deformable convolutions, squeeze-and-excitation, exact checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmres2net.init_cfg import loads_weights

Cfg = dict[str, Any]


def build_norm(norm_cfg: Cfg, channels: int) -> nn.Module:
    """Return the norm layer of ``norm_cfg`` for ``channels`` channels.

    Raises:
        ValueError: GN whose ``num_groups`` does not divide the channels. The splits of Res2Net are narrow (26 channels
            in stage 1), so the usual 32 groups do not fit.
    """
    groups = norm_cfg.get('num_groups')
    if groups is not None and channels % groups:
        raise ValueError(
            f'norm_cfg={norm_cfg} cannot divide {channels} channels into {groups} groups; choose a num_groups that '
            'divides every width of the network (2 does for base width 26), or a base_width that is a multiple of it'
        )
    return build_norm_layer(dict(norm_cfg), channels)[1]


def build_conv3x3(
    conv_cfg: Cfg | None, channels: int, *, stride: int, dilation: int, groups: int, dcn: Cfg | None
) -> nn.Module:
    """Return a 3x3 convolution that keeps the channels; deformable where ``dcn`` is given, unless it falls back."""
    cfg = conv_cfg
    if dcn is not None:
        import mmcv.ops  # noqa: F401 - registers the deformable convolutions; slow to import and needed only here

        deform = dict(dcn)
        fallback = deform.pop('fallback_on_stride', False)
        cfg = conv_cfg if fallback and stride != 1 else deform
    conv = build_conv_layer(
        cfg, channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False
    )
    offset = getattr(conv, 'conv_offset', None)
    if isinstance(offset, nn.Module):
        # mmcv reads the offsets as if they were contiguous; in a channels_last network they are not
        offset.register_forward_hook(_contiguous)
    return conv


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous()


def zero_offsets(module: nn.Module) -> None:
    """Make every deformable convolution in ``module`` start as a regular grid (Dai et al. 2017, section 2.1)."""
    for child in module.modules():
        offset = getattr(child, 'conv_offset', None)
        if isinstance(offset, nn.Module):
            for parameter in offset.parameters():
                nn.init.zeros_(parameter)


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
    """Run ``forward`` and recompute it in the backward pass, leaving running statistics as a plain run leaves them.

    A recomputed batch norm would count its batch twice; during the recomputation the statistics therefore stand still.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _still_statistics(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
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
    """Freezing as users of OpenMMLab's ResNets know it, with the stem told apart from the stages.

    Frozen parts have no gradients and their norms keep their statistics, also after ``train()``.

    Args:
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        freeze_stem: Freezes or spares the stem whatever ``frozen_stages`` says; None: as ``frozen_stages`` says.
        norm_eval: Keep all batch norms on their running statistics in training.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self, *, frozen_stages: int, freeze_stem: bool | None, norm_eval: bool, init_cfg: Cfg | list[Cfg] | None
    ) -> None:
        super().__init__(init_cfg)
        self.frozen_stages = frozen_stages
        self.freeze_stem = frozen_stages >= 0 if freeze_stem is None else freeze_stem
        self.norm_eval = norm_eval

    def stem_modules(self) -> list[nn.Module]:
        """Return the modules before the first stage."""
        raise NotImplementedError

    def stage_modules(self) -> list[nn.Module]:
        """Return the stages that are built."""
        raise NotImplementedError

    def frozen_modules(self) -> list[nn.Module]:
        """Return what ``frozen_stages`` and ``freeze_stem`` freeze."""
        stem = self.stem_modules() if self.freeze_stem else []
        return [*stem, *self.stage_modules()[: max(self.frozen_stages, 0)]]

    def freeze(self) -> None:
        """Stop the gradients of the frozen parts and hold their norms; constructors call it last."""
        for module in self.frozen_modules():
            module.eval().requires_grad_(False)

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, once; unless that loads weights, :meth:`init_zeros` follows."""
        first = not self.is_init
        super().init_weights()
        if first and not loads_weights(self.init_cfg):
            self.init_zeros()

    def init_zeros(self) -> None:
        """Set to zero what starts at zero in random weights: the offsets of deformable convolutions."""
        zero_offsets(self)

    def train(self, mode: bool = True) -> FreezableBackbone:
        """Set the training mode of all but frozen parts and, with ``norm_eval``, batch norms. Returns self."""
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self


def gradients_wanted() -> bool:
    """Whether a checkpoint would save anything: not in inference, and not while a graph is being traced."""
    return torch.is_grad_enabled() and not torch.jit.is_tracing()


def default_init_cfg() -> list[Cfg]:
    """Return the initialisation of the official release: Kaiming normal by fan out, norms at one."""
    return [
        {'type': 'Kaiming', 'layer': 'Conv2d'},
        {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
    ]
