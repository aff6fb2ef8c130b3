"""A convolution and its batch norm as one convolution, and when the two may be replaced by it.

Nothing is folded that a user could tell from the plain modules: exact types alone, without hooks, patched methods,
parametrizations or norms in training mode.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.drop import DropPath
from mmengine.model.utils import _BatchNormXd  # what MMEngine puts in place of SyncBatchNorm in a single process
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmres2net.models.dla import Bottleneck, Root
from mmres2net.models.res2net import Bottle2neck, Res2Net

Pair = tuple[nn.Module, nn.Module]

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd)
_KINDS = (
    nn.Conv2d, *BATCH_NORMS, nn.ReLU, nn.Identity, nn.Sequential, DropPath, ConvModule, Bottle2neck, Bottleneck, Root,
    Res2Net,
)  # fmt: skip
# Methods that decide what a module computes, and what they were at import: a class may be patched later.
_METHODS = ('forward', '_conv_forward', '_forward', '_multi_scale', 'stem')
_ORIGINALS = {kind: [(name, getattr(kind, name)) for name in _METHODS if hasattr(kind, name)] for kind in _KINDS}
_PATCHABLE = frozenset((*_METHODS, '_call_impl'))


def is_unmodified(module: nn.Module, kind: type[nn.Module] | None = None) -> bool:
    """Whether ``module`` computes what ``kind``, by default its exact type, was written to compute.

    It is False for classes that are not known here, for hooks, and for methods patched on the module or its class.
    """
    kind = type(module) if kind is None else kind
    if module._forward_hooks or module._forward_pre_hooks or not _PATCHABLE.isdisjoint(vars(module)):
        return False
    originals = _ORIGINALS.get(kind)
    return originals is not None and all(getattr(kind, name) is method for name, method in originals)


def is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether ``norm`` behind ``conv`` can be folded into it; ``nn.Identity`` stands for a norm that was folded."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        return False
    if type(norm) in BATCH_NORMS:
        if norm.training or norm._buffers.get('running_mean') is None or norm._buffers.get('running_var') is None:
            return False
    elif type(norm) is not nn.Identity:
        return False
    return conv._parameters.get('weight') is not None and is_unmodified(conv) and is_unmodified(norm)


def fold(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the one convolution that does what ``conv`` and ``norm`` do in evaluation mode.

    Computed in float64, so that only the result is rounded.
    """
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if isinstance(norm, nn.Identity):
        return weight, bias
    held: dict[str, Any] = {**norm._parameters, **norm._buffers}
    mean, var, scale, shift = (
        None if held[name] is None else held[name].detach().double()
        for name in ('running_mean', 'running_var', 'weight', 'bias')
    )
    eps: Any = norm.eps
    double_bias = None if bias is None else bias.double()
    assert mean is not None and var is not None, 'is_foldable was not asked'  # noqa: PT018
    folded = fuse_conv_bn_weights(weight.double(), double_bias, mean, var, eps, scale, shift)
    with torch.no_grad():
        return folded[0].detach().to(weight.dtype), folded[1].detach().to(weight.dtype)
