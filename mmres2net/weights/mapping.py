"""Names of one family turned into those of another; what a file had and what became of it, as a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.weights.families import SHARED_HEAD, Recognised, is_unused_projection

# Our names of a deep stem's layers (the official ones), and the hosts'. All other layers are named alike everywhere.
MMDET_STEM = MappingProxyType({**{f'conv1.{i}': f'stem.{i}' for i in (0, 1, 3, 4, 6)}, 'bn1': 'stem.7'})
MMPRETRAIN_STEM = MappingProxyType(
    {
        'conv1.0': 'stem.0.conv',
        'conv1.1': 'stem.0.bn',
        'conv1.3': 'stem.1.conv',
        'conv1.4': 'stem.1.bn',
        'conv1.6': 'stem.2.conv',
        'bn1': 'stem.2.bn',
    }
)
_ROOTS = ('conv1', 'bn1', 'base_layer', *(f'layer{i}' for i in range(1, 5)), *(f'level{i}' for i in range(6)))
COUNTER = 'num_batches_tracked'
SHOWN = 6


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a file.

    Args:
        source: What was recognised, in words.
        loaded: Names that were taken over as they are, in our naming.
        renamed: Our name of each tensor that the file names otherwise, by the file's name.
        adapted: What was changed on the way, a sentence each.
        left: Names of the file that were not used.
        random: Parameters that stay as they were initialised, on demand.
    """

    source: str
    loaded: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    adapted: Sequence[str] = ()
    left: Sequence[str] = ()
    random: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f'{self.source}: {len(self.loaded)} tensors taken over']
        if self.renamed:
            theirs, ours = next(iter(self.renamed.items()))
            lines[0] += f', {len(self.renamed)} of them renamed ({theirs} -> {ours} ...)'
        lines += [f'  adapted: {text}' for text in self.adapted]
        lines += [f'  left out: {by_root(self.left)}'] if self.left else []
        lines += [f'  stays random, as asked for: {some(self.random)}'] if self.random else []
        return '\n'.join(lines)


def some(names: Sequence[str]) -> str:
    """Return the first few of ``names`` and how many more there are."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def by_root(names: Iterable[str]) -> str:
    """Return what stands before the first point of ``names``, with counts."""
    counts = Counter(name.split('.')[0] for name in names)
    return ', '.join(root if count == 1 else f'{root}.* ({count})' for root, count in counts.items())


def stem_names(naming: str, deep_stem: bool) -> Mapping[str, str]:
    """Return what ``naming`` calls the layers of a stem, by our names, where it calls them otherwise."""
    if not deep_stem:
        return MappingProxyType({})
    return {'mmdet': MMDET_STEM, 'mmpretrain': MMPRETRAIN_STEM}.get(naming, MappingProxyType({}))


def rename(name: str, layers: Mapping[str, str]) -> str:
    """Return the name of a parameter whose layer is called otherwise, by ``layers``."""
    layer, _, parameter = name.rpartition('.')
    return f'{layers.get(layer, layer)}.{parameter}'


def to_ours(state: Mapping[str, Tensor], recognised: Recognised) -> tuple[dict[str, Tensor], Report]:
    """Return the network in ``state`` by our names, and what became of the rest.

    Tensors are handed on, not copied or cast. Counters of batches, which files of old versions of torch lack, are
    filled with zeros. A classifier is left out, and so is what an official DLA file holds and never runs.

    Args:
        state: Weights by name, as :func:`mmres2net.weights.unwrap` returns them.
        recognised: What :func:`mmres2net.weights.recognise` says of them.

    Raises:
        UserError: A tensor holds NaN or infinite values, or whole numbers where weights should be.
    """
    theirs = stem_names(recognised.family, recognised.row.deep_stem)
    layers = {their: our for our, their in theirs.items()}
    inner = {name.removeprefix(recognised.prefix): name for name in state if name.startswith(recognised.prefix)}
    if recognised.shared_head:
        shared = (name for name in state if name.startswith(SHARED_HEAD + 'layer'))
        inner |= {name.removeprefix(SHARED_HEAD): name for name in shared}
    ours = {rename(name, layers): full for name, full in inner.items()}
    network = {name: state[full] for name, full in ours.items()}
    kept = {
        name: tensor
        for name, tensor in network.items()
        if name.split('.')[0] in _ROOTS and not is_unused_projection(name, network)
    }
    check_values(kept)
    used = {ours[name] for name in kept}
    report = Report(
        source=str(recognised),
        loaded=tuple(kept),
        renamed={ours[name]: name for name in kept if ours[name] != recognised.prefix + name},
        adapted=fill_counters(kept),
        left=tuple(name for name in state if name not in used),
    )
    return kept, report


def fill_counters(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Put a zero where a norm with running statistics has no counter of batches; return a sentence that says so."""
    norms = [name.rpartition('.')[0] for name in state if name.endswith('.running_mean')]
    bare = [f'{norm}.{COUNTER}' for norm in norms if f'{norm}.{COUNTER}' not in state]
    for name in bare:
        state[name] = torch.tensor(0)
    return (f'{len(bare)} {COUNTER} set to 0: an old file, which has none',) if bare else ()


def check_values(state: Mapping[str, Tensor]) -> None:
    """Check that all weights are numbers that a network can hold.

    Raises:
        UserError: They are not; the message names the tensors.
    """
    whole = [n for n, t in state.items() if not t.is_floating_point() and not n.endswith(COUNTER)]
    if whole:
        raise UserError(
            f'{len(whole)} weights are no floating-point numbers but {state[whole[0]].dtype}: {some(whole)}; '
            'quantised weights cannot be loaded, take those they were made of'
        )
    broken = [n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise UserError(
            f'{len(broken)} tensors hold NaN or infinite values: {some(broken)}; the training that wrote this file had '
            'diverged, or the file is damaged: take an earlier one'
        )
