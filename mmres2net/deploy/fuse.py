"""Batch norms folded into convolutions: when that is allowed, how it is done, and ``fuse``, which does it in a copy.

Nothing is folded that a user could tell from the plain modules: exact types alone, without hooks, patched methods,
parametrizations or norms in training mode.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.drop import DropPath
from mmengine.model.utils import _BatchNormXd  # what MMEngine puts in place of SyncBatchNorm in a single process
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmres2net.models.dla import Bottleneck, Root
from mmres2net.models.res2net import Bottle2neck, Res2Net

Model = TypeVar('Model', bound=nn.Module)
Pair = tuple[nn.Module, nn.Module]
Place = tuple[nn.Module, str]  # a module and the name of one of its children

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd)
HELD = ('running_mean', 'running_var', 'weight', 'bias')  # what a batch norm computes with
_KINDS = (
    nn.Conv2d, nn.Linear, *BATCH_NORMS, nn.ReLU, nn.Identity, nn.Sequential, DropPath, ConvModule, Bottle2neck,
    Bottleneck, Root, Res2Net,
)  # fmt: skip
# Methods that decide what a module computes, and what they were at import: a class may be patched later.
_METHODS = ('forward', '_conv_forward', '_forward', '_multi_scale', 'stem')
_ORIGINALS = {kind: {name: getattr(kind, name) for name in _METHODS if hasattr(kind, name)} for kind in _KINDS}
_PATCHABLE = frozenset((*_METHODS, '_call_impl'))


def is_unmodified(module: nn.Module, kind: type[nn.Module] | None = None) -> bool:
    """Whether ``module`` computes what ``kind``, by default its exact type, was written to compute.

    It is False for classes that are not known here, for hooks, and for methods patched on the module or its class.
    """
    kind = type(module) if kind is None else kind
    if module._forward_hooks or module._forward_pre_hooks or not vars(module).keys().isdisjoint(_PATCHABLE):
        return False
    originals = _ORIGINALS.get(kind)  # hundreds of times per image, for which all() is slow
    return originals is not None and {name: getattr(kind, name) for name in originals} == originals


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
    held: Any = {**norm._parameters, **norm._buffers, 'eps': norm.eps}
    # On the CPU: not every device has float64.
    mean, var, scale, shift = (held[k] if held[k] is None else held[k].detach().cpu().double() for k in HELD)
    double_bias = None if bias is None else bias.cpu().double()
    folded = fuse_conv_bn_weights(weight.cpu().double(), double_bias, mean, var, held['eps'], scale, shift)
    return folded[0].detach().to(weight), folded[1].detach().to(weight)


def fuse(model: Model) -> Model:
    """Return a copy of ``model`` for inference, with batch norms folded into the convolutions before them.

    The copy consists of plain modules: ``nn.Conv2d`` with a bias, and ``nn.Identity`` in place of each folded norm. So
    hooks, ``torch.compile``, ``torch.export`` and FLOP counters work on it. Folded are the blocks of this package,
    neighbours in an ``nn.Sequential``, and mmcv's ``ConvModule``. Only exact types are folded: modules with
    hooks, patched methods or parametrizations, and norms without running statistics, stay as they are.

    The copy is in evaluation mode and keeps the memory format. Its outputs differ by rounding: in float32 by less than
    1e-5 of a feature's largest value on every network of the table. Its state dict has other names, so load weights
    before. :func:`mmres2net.engine.speed.speed_up` makes it faster on a CPU.
    """
    fused = copy.deepcopy(model)
    fused.eval()  # returns None for some models of OpenMMLab
    for module in list(fused.modules()):
        if is_unmodified(module):
            for conv, norm in _pairs_in(module):
                _fold_in_place(conv, norm)
    return fused


def _fold_in_place(conv_place: Place, norm_place: Place) -> None:
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
