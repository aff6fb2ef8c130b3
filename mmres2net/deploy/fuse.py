"""``fuse``: batch norms folded into plain convolutions, for inference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmres2net.deploy.folding import fold, is_foldable, is_unmodified
from mmres2net.models.dla import Bottleneck, Root
from mmres2net.models.res2net import Bottle2neck, Res2Net

Model = TypeVar('Model', bound=nn.Module)
Place = tuple[nn.Module, str]  # a module and the name of one of its children


class FusedConvModule(ConvModule):
    """mmcv's ConvModule whose norm is folded into its convolution."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Return the activated convolution of ``x`` (N, in_channels, H, W).

        Raises:
            RuntimeError: ``norm=False``: the norm cannot be left out any more.
        """
        if not norm:
            raise RuntimeError('norm=False: the norm of this ConvModule was folded into its convolution by fuse()')
        out: Tensor = super().forward(x, activate)
        return out


def fuse(model: Model) -> Model:
    """Return a copy of ``model`` for inference, with batch norms folded into the convolutions before them.

    The copy consists of plain modules: ``nn.Conv2d`` with a bias, and ``nn.Identity`` in place of each folded norm. So
    hooks, ``torch.compile``, ``torch.export`` and FLOP counters work on it. Folded are the blocks of this package,
    neighbours in an ``nn.Sequential``, and mmcv's ``ConvModule``. Only exact types are folded: modules with
    hooks, patched methods or parametrizations, and norms without running statistics, stay as they are.

    The memory format stays as well. :func:`mmres2net.engine.speed.speed_up` makes the copy faster on a CPU.

    Args:
        model: Any model; it is not changed.

    Returns:
        The copy, in evaluation mode. Its outputs differ by rounding: in float32 by less than 1e-5 of a feature's
        largest value on every network of the table. Its state dict has other names, so load weights before.
    """
    # The weight that torch's weight_norm leaves is not a leaf, which deepcopy refuses; a hook computes it anew.
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    fused = copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})
    fused.eval()  # returns None for some models of OpenMMLab
    for module in list(fused.modules()):
        if is_unmodified(module):
            for conv, norm in _pairs_in(module):
                _fold_in_place(module, conv, norm)
    return fused


def _fold_in_place(owner: nn.Module, conv_place: Place, norm_place: Place) -> None:
    (conv_owner, conv_name), (norm_owner, norm_name) = conv_place, norm_place
    conv: Any = conv_owner._modules[conv_name]
    norm: Any = norm_owner._modules[norm_name]
    if isinstance(norm, nn.Identity) or not is_foldable(conv, norm):
        return
    weight, bias = fold(conv, norm)
    folded = copy.deepcopy(conv)  # the convolution itself may also be used elsewhere
    folded.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    folded.bias = None if bias is None else nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
    conv_owner._modules[conv_name] = folded
    norm_owner._modules[norm_name] = nn.Identity().eval()
    if type(owner) is ConvModule:
        owner.__class__ = FusedConvModule


def _pairs_in(module: Any) -> Iterator[tuple[Place, Place]]:
    """Yield the places of each convolution in ``module`` and of the norm that runs directly after it."""
    if type(module) is nn.Sequential:
        for conv, norm in pairwise(module._modules):
            yield (module, conv), (module, norm)
    elif type(module) is ConvModule:
        skips_norm = getattr(module, 'efficient_conv_bn_eval_forward', None) is not None
        if module.order == ('conv', 'norm', 'act') and module.with_norm and not skips_norm:
            yield (module, 'conv'), (module, module.norm_name)
    elif type(module) is Res2Net:
        deep = isinstance(module.conv1, nn.Sequential)
        last = (module.conv1, next(reversed(module.conv1._modules))) if deep else (module, 'conv1')
        yield last, (module, 'bn1')
    elif type(module) is Root:
        yield (module, 'conv'), (module, 'bn')
    elif type(module) in (Bottle2neck, Bottleneck):
        for i in (1, 2, 3):
            if f'conv{i}' in module._modules:
                yield (module, f'conv{i}'), (module, f'bn{i}')
        convs, norms = module._modules.get('convs'), module._modules.get('bns')
        if convs is not None and norms is not None:
            yield from (((convs, name), (norms, name)) for name in convs._modules)
