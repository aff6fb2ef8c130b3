"""Weights into a network, strictly: what would stay random is an error, and so is a weight that has no place.

``init_cfg=dict(type='mmres2net.Pretrained', checkpoint=...)`` in a config does it by name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.models.options import STAGE_POOLS
from mmres2net.models.res2net import Bottle2neck
from mmres2net.registry import WEIGHT_INITIALIZERS
from mmres2net.text import join_some
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.naming import ROOTS, SHARED_HEAD, Recognised, is_unused_projection, recognise, rename, stem_names
from mmres2net.weights.reading import read_checkpoint, unwrap

COUNTER = 'num_batches_tracked'
FIRST_CONVS = ('conv1.weight', 'conv1.0.weight', 'base_layer.0.weight')


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Start a backbone, or the last stage as a head, from a checkpoint of any library that has the network.

    Unlike MMEngine's initializer of this name, it runs no code, and leaves no parameter random that is not named. If
    the checkpoint cannot be read, or does not fit, a call is a UserError and the network unchanged.

    Args:
        checkpoint: As in :func:`mmres2net.weights.fetching.fetch_checkpoint`.
        prefix: Prefix of the network's names in the file, such as ``'backbone.'``; None: found.
        random_ok: Names of parameters or modules, or patterns with ``*``, that may stay as they were initialized.
    """

    def __init__(self, checkpoint: str, *, prefix: str | None = None, random_ok: Sequence[str] = ()) -> None:
        if not isinstance(checkpoint, str):
            raise UserError(f'checkpoint={checkpoint!r} must be a name, a path or a URL')
        self.checkpoint, self.prefix, self.random_ok = checkpoint, prefix, random_ok

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into ``module``, a Res2Net, Res2NetDLA or Res2LayerHead; the main process logs it."""
        path = fetch_checkpoint(self.checkpoint)
        try:
            state = unwrap(read_checkpoint(path))
            recognised = recognise(state, prefix=self.prefix)
            ours, mapped = to_ours(state, recognised)
            check_stage_pool(recognised, module)
            fitted = fit(ours, module, random_ok=self.random_ok)
        except UserError as error:
            raise UserError(f'weights {self.checkpoint!r}: {error}') from error
        if is_main_process():
            print_log(f'weights {self.checkpoint!r}: {recognised}\n{mapped}\n{fitted}', 'current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'mmres2net.Pretrained: loaded from {self.checkpoint}')


@dataclass(frozen=True)
class Report:
    """What happened to the tensors of a file."""

    source: str  # what was recognised, in words
    loaded: Sequence[str] = ()  # our names of the tensors that were used
    renamed: Mapping[str, str] = field(default_factory=dict)  # our names, by the file's, where they differ
    adapted: Sequence[str] = ()  # what was changed, a sentence each
    left: Sequence[str] = ()  # names of the file that were not used
    random: Sequence[str] = ()  # parameters that stay as they were initialized, as asked for

    def __str__(self) -> str:
        lines = [f'{self.source}: {len(self.loaded)} tensors used']
        if self.renamed:
            theirs, ours = next(iter(self.renamed.items()))
            lines[0] += f', {len(self.renamed)} of them renamed ({theirs} -> {ours} ...)'
        lines += [f'  adapted: {text}' for text in self.adapted]
        roots = Counter(name.split('.')[0] for name in self.left)
        left = ', '.join(root if count == 1 else f'{root}.* ({count})' for root, count in roots.items())
        lines += [f'  not used: {left}'] if left else []
        lines += [f'  random, as asked for: {join_some(self.random)}'] if self.random else []
        return '\n'.join(lines)


def to_ours(state: Mapping[str, Tensor], recognised: Recognised) -> tuple[dict[str, Tensor], Report]:
    """Return the network in ``state`` under our names, and what happened to the rest; tensors are not copied.

    Missing counters of batches become zero; a classifier is left out, and what an official DLA file holds and never
    uses. A UserError names tensors that hold NaN or infinite values, or integers instead of weights.
    """
    names = {name.removeprefix(recognised.prefix): name for name in state if name.startswith(recognised.prefix)}
    names |= {name.removeprefix(SHARED_HEAD): name for name in state if name.startswith(SHARED_HEAD + 'layer')}
    layers = {theirs: ours for ours, theirs in stem_names(recognised.family, recognised.deep_stem).items()}
    names = {rename(name, layers): full for name, full in names.items()}
    used = {n: full for n, full in names.items() if n.split('.')[0] in ROOTS and not is_unused_projection(n, names)}
    network, files = {name: state[full] for name, full in used.items()}, {*used.values()}
    integers = [n for n, t in network.items() if not t.is_floating_point() and not n.endswith(COUNTER)]
    if integers:
        what = f'{len(integers)} weights are not floating-point numbers but {network[integers[0]].dtype}'
        raise UserError(f'{what}: {join_some(integers)}; use the weights that the quantized ones were made from')
    check_finite(network)
    renamed = {full: name for name, full in used.items() if full != recognised.prefix + name}
    left = [name for name in state if name not in files]
    return network, Report(str(recognised), [*used], renamed, fill_counters(network), left)


def fit(state: Mapping[str, Tensor], module: nn.Module, *, random_ok: Sequence[str] = ()) -> Report:
    """Load ``state`` into ``module``, all or nothing.

    The first convolution is adapted to other input channels (:func:`adapt_channels`), weights are cast to the types of
    ``module``. Stages that ``module`` does not build, and a classifier, are not used. Offsets of deformable
    convolutions may be missing where they are zero. ``random_ok`` is as in :class:`Pretrained`.

    A UserError says that parameters would stay random, shapes differ, or weights have no place; a ValueError that
    ``module`` is on the meta device. ``module`` is then unchanged.
    """
    own = module.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise ValueError('the network is on the meta device: give it memory first, e.g. with to_empty(device="cpu")')
    weights = dict(state)
    adapted = [*fill_counters(weights), *_adapt_first_conv(weights, own)]
    taken = [name for name in own if name in weights and weights[name].shape == own[name].shape]
    missing = [name for name in own if name not in weights]
    offsets = [name for name in missing if '.conv_offset.' in name and not bool(own[name].any())]
    faults = differences(weights, own, _matching(random_ok, own) | set(offsets))
    if faults:
        way = 'build the network that they are of, or use weights of this one'
        last = f'{way}; what may stay random is named in random_ok, e.g. random_ok=["layer4"]'
        raise UserError('\n'.join([f'these weights do not fit this {type(module).__name__}:', *faults, last]))
    casts = Counter(f'from {weights[n].dtype} to {own[n].dtype}' for n in taken if weights[n].dtype != own[n].dtype)
    adapted += [f'{count} tensors cast {types.replace("torch.", "")}' for types, count in casts.items()]
    adapted += [f'{len(offsets)} offsets of deformable convolutions start at zero'] if offsets else []
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    left, random = [n for n in weights if n not in taken], [n for n in own if n not in taken and n not in offsets]
    return Report('into the network', taken, adapted=adapted, left=left, random=random)


def differences(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], allowed: set[str]) -> list[str]:
    """Return a line for each kind of difference; names in ``allowed`` may be missing or differ in shape."""
    roots = {name.split('.')[0] for name in own}
    free = {name.rpartition('.')[0] for name in allowed}
    unknown = [name for name in weights if name not in own and name.split('.')[0] in roots]
    faults = {
        'tensors of the network are missing in the file': [n for n in own if n not in weights and n not in allowed],
        'have another shape': [
            f'{name} {tuple(weights[name].shape)} in the file, {tuple(tensor.shape)} here'
            for name, tensor in own.items()
            if name in weights and weights[name].shape != tensor.shape and name not in allowed
        ],
        'tensors in the file match no parameter': [name for name in unknown if name.rpartition('.')[0] not in free],
    }
    return [f'  - {len(names)} {what}: {join_some(names)}' for what, names in faults.items() if names]


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a first convolution's weight (O, 3, K, K) for other input channels, (O, channels, K, K), as timm does.

    One channel: the sum over red, green and blue. More: the three in turn, scaled by 3 / channels. So equal channels
    give what they gave.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    turns = torch.arange(channels) % weight.shape[1]
    return weight[:, turns] * (weight.shape[1] / channels)


def stage_pools_of(module: nn.Module) -> frozenset[str]:
    """Return every ``stage_pool`` with which ``module`` would be the same function; strides may leave no difference."""
    pools = (frozenset(block.stage_pools) for block in module.modules() if isinstance(block, Bottle2neck))
    return frozenset(STAGE_POOLS).intersection(*pools)


def check_stage_pool(recognised: Recognised, module: nn.Module) -> None:
    """Raise a UserError if the names prove that the weights were trained with another function than ``module`` has.

    No published weights were trained with ``maskrcnn``, the paper's Mask R-CNN runs neither: it is taken as meant.
    """
    pools = stage_pools_of(module)
    if recognised.stage_pool and recognised.stage_pool not in pools and pools != {'maskrcnn'}:
        trained, here = f'stage_pool={recognised.stage_pool!r}', ' or '.join(map(repr, sorted(pools)))
        what = f'the weights ({recognised}) were trained with {trained}, the network has {here}'
        raise UserError(f'{what}: another function. Set {trained} in the backbone (and in a shared head)')


def _adapt_first_conv(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    for name in {*FIRST_CONVS} & weights.keys() & own.keys():
        had, wanted = weights[name].shape, own[name].shape
        if had[1] == 3 != wanted[1] and had[2:] == wanted[2:]:
            weights[name] = adapt_channels(weights[name], wanted[1])
            how = 'the sum over RGB' if wanted[1] == 1 else f'R, G, B in turn, times 3/{wanted[1]}'
            return [f'{name} from 3 to {wanted[1]} input channels: {how}']
    return []


def fill_counters(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Add a zero counter of batches to each norm with running statistics that has none; return a sentence about it."""
    norms = [name.rpartition('.')[0] for name in state if name.endswith('.running_mean')]
    missing = [f'{norm}.{COUNTER}' for norm in norms if f'{norm}.{COUNTER}' not in state]
    state |= {name: torch.tensor(0) for name in missing}
    return (f'{len(missing)} {COUNTER} set to 0, which old files lack',) if missing else ()


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise a UserError that names the tensors with NaN or infinite values, if there are any."""
    broken = [name for name, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        what = f'{len(broken)} tensors hold NaN or infinite values: {join_some(broken)}'
        raise UserError(f'{what}; the training that wrote this file had diverged, or it is damaged: use an earlier one')


def _matching(random_ok: Sequence[str], own: Mapping[str, Tensor]) -> set[str]:
    """Return the names in ``own`` that ``random_ok`` allows to stay random."""
    if isinstance(random_ok, str):
        raise UserError(f'random_ok={random_ok!r} must be a list of names, such as [{random_ok!r}]')
    found = {entry: {n for n in own if f'{n}.'.startswith(f'{entry}.') or fnmatchcase(n, entry)} for entry in random_ok}
    for entry, names in found.items():
        if not names:
            raise UserError(f'random_ok names {entry!r}, which the network does not have; its names: {join_some(own)}')
    return set().union(*found.values())
