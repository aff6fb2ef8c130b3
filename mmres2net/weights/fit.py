"""Weights into a network, strictly: what would stay random is an error, and so is a weight without a place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.models.options import STAGE_POOLS
from mmres2net.models.res2net import Bottle2neck
from mmres2net.weights.families import Recognised, recognise
from mmres2net.weights.mapping import Report, fill_counters, some

FIRST_CONVS = ('conv1.weight', 'conv1.0.weight', 'base_layer.0.weight')
RGB = 3


def fit(state: Mapping[str, Tensor], module: nn.Module, *, random_ok: Sequence[str] = ()) -> Report:
    """Load ``state`` into ``module``, all or nothing.

    The first convolution is adapted to another number of input channels (:func:`adapt_channels`), weights are cast to
    the types of ``module``. Stages that ``module`` does not build, and a classifier, are left. The offsets of
    deformable convolutions may be missing where they are zero: they then start as regular convolutions.

    Args:
        state: Weights by our names, as :func:`mmres2net.weights.to_ours` returns them.
        module: A :class:`Res2Net`, :class:`Res2NetDLA` or :class:`Res2LayerHead`.
        random_ok: Names of what may stay as it was initialised: a parameter, a module, or a pattern with ``*``.

    Raises:
        UserError: Parameters would stay random, shapes differ, or weights have no place; ``module`` is unchanged.
        ValueError: ``module`` lies on the meta device, where nothing can be loaded.
    """
    own = module.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise ValueError('the network is on the meta device: give it memory first, e.g. with to_empty(device="cpu")')
    weights = dict(state)
    adapted = [*fill_counters(weights), *_adapt_first_conv(weights, own)]
    misfits = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    missing = [name for name in own if name not in weights]
    allowed = _allowed(random_ok, own)
    offsets = [name for name in missing if '.conv_offset.' in name and not bool(own[name].any())]
    faults = _faults(
        [name for name in missing if name not in allowed and name not in offsets],
        {name: (weights[name].shape, own[name].shape) for name in misfits if name not in allowed},
        _homeless(weights, own, allowed),
    )
    if faults:
        raise UserError('\n'.join([f'these weights do not fit {_words(own, module)}:', *faults, _way_out(weights)]))
    taken = [name for name in own if name in weights and name not in misfits]
    adapted += _casts(weights, own, taken)
    adapted += [f'{len(offsets)} offsets of deformable convolutions start at zero'] if offsets else []
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    return Report(
        source='into the network',
        loaded=tuple(taken),
        adapted=tuple(adapted),
        left=tuple(name for name in weights if name not in taken),
        random=tuple(name for name in own if name not in taken and name not in offsets),
    )


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution's weight (O, 3, K, K) for another number of input channels, (O, channels, K, K).

    One channel: the sum over red, green and blue, so that a grey image gives what it gave in all three. More: the three
    in turn, scaled by 3 / channels, so that equal channels give what they gave. This is also what timm does.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = torch.arange(channels) % weight.shape[1]
    return weight[:, turns] * (weight.shape[1] / channels)


def stage_pools_of(module: nn.Module) -> frozenset[str]:
    """Return every ``stage_pool`` with which ``module`` would be the function that it is.

    More than one: its strides leave no difference, as in a head of one strided stage.
    """
    found = set(STAGE_POOLS)
    for block in module.modules():
        if not isinstance(block, Bottle2neck) or not block.is_first or len(block.convs) < 1:
            continue
        stride1, stride3 = (_stride(conv) for conv in (block.conv1, block.convs[0]))
        pooled = not isinstance(block.pool, nn.Identity)
        if stride1 > 1:
            found &= {'maskrcnn'}
        elif stride3 > 1:
            found &= {'official', 'mmdet'}
        elif pooled:
            found &= {'official', 'maskrcnn'}
        elif block.conv1.weight.shape[0] > block.width:  # scales above 1: there is a split that could be pooled
            found &= {'mmdet'}
    return frozenset(found)


def check_stage_pool(recognised: Recognised, module: nn.Module) -> None:
    """Check that ``module`` computes the function that the weights were trained with, where the names prove which.

    No published weights were trained with ``maskrcnn``: who sets it wants what the paper's Mask R-CNN runs did, which
    started from weights of the other function. It is therefore taken as meant.

    Raises:
        UserError: It computes another one.
    """
    pools = stage_pools_of(module)
    if recognised.stage_pool_sure and recognised.stage_pool not in pools and pools != {'maskrcnn'}:
        raise UserError(
            f'the weights ({recognised}) were trained with stage_pool={recognised.stage_pool!r}, the network has '
            f'{" or ".join(map(repr, sorted(pools)))}: the same weights compute another function there. '
            f'Set stage_pool={recognised.stage_pool!r} in the backbone (and in a shared head)'
        )


def _stride(conv: nn.Module) -> int:
    stride = conv.stride
    return max(stride) if isinstance(stride, tuple) else int(stride)  # type: ignore[arg-type]


def _adapt_first_conv(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    for name in FIRST_CONVS:
        if name not in weights or name not in own:
            continue
        had, wanted = weights[name].shape, own[name].shape
        if had[1] == RGB != wanted[1] and had[2:] == wanted[2:]:
            weights[name] = adapt_channels(weights[name], wanted[1])
            how = 'the sum over RGB' if wanted[1] == 1 else f'R, G, B in turn, times 3/{wanted[1]}'
            return [f'{name} from 3 to {wanted[1]} input channels: {how}']
    return []


def _allowed(random_ok: Sequence[str], own: Mapping[str, Tensor]) -> set[str]:
    if isinstance(random_ok, str):
        raise UserError(f'random_ok={random_ok!r} must be a list of names, such as [{random_ok!r}]')
    allowed: set[str] = set()
    for entry in random_ok:
        found = {name for name in own if name == entry or name.startswith(f'{entry}.') or fnmatchcase(name, entry)}
        if not found:
            raise UserError(f'random_ok names {entry!r}, which the network does not have; its names: {some([*own])}')
        allowed |= found
    return allowed


def _homeless(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], allowed: set[str]) -> list[str]:
    """Return weights of layers that the network builds, but without them: norms of another kind, an SE too many."""
    roots = {name.split('.')[0] for name in own}
    free = {name.rpartition('.')[0] for name in allowed}
    return [
        name
        for name in weights
        if name not in own and name.split('.')[0] in roots and name.rpartition('.')[0] not in free
    ]


def _faults(missing: list[str], misfits: Mapping[str, tuple[torch.Size, torch.Size]], homeless: list[str]) -> list[str]:
    faults = []
    if missing:
        faults.append(f'  - {len(missing)} tensors of the network are not in the file and would stay random: ')
        faults[-1] += some(missing)
    if misfits:
        texts = [f'{name} {tuple(had)} in the file, {tuple(want)} here' for name, (had, want) in misfits.items()]
        faults.append(f'  - {len(texts)} have another shape: {some(texts)}')
    if homeless:
        faults.append(f'  - {len(homeless)} tensors of the file have no place in its layers: {some(homeless)}')
        if any(name.endswith('.running_mean') for name in homeless):
            faults.append('    (weights of batch norms: this network has norms of another kind; see norm_cfg)')
    return faults


def _words(own: Mapping[str, Tensor], module: nn.Module) -> str:
    try:
        found = recognise(own)
    except UserError:  # a head has a stage alone, which names no network
        return f'this {type(module).__name__}'
    return f'this network ({found.network})'


def _way_out(weights: Mapping[str, Tensor]) -> str:
    try:
        found = recognise(weights)
    except UserError:
        start = 'they are of a part of a network: take the weights of a whole one'
    else:
        start = f'they are of {found.network}: build that network, or take weights of this one'
    return f'{start}; what may stay random is named in random_ok, e.g. random_ok=["layer4"]'


def _casts(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], taken: Sequence[str]) -> list[str]:
    pairs = Counter((weights[name].dtype, own[name].dtype) for name in taken if own[name].is_floating_point())
    return [
        f'{count} tensors cast from {str(had)[6:]} to {str(want)[6:]}'
        for (had, want), count in pairs.items()
        if had != want
    ]
