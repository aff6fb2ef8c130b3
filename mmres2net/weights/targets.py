"""What a converted file looks like: names and surroundings that another library reads, where it has the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.models.arch import Arch
from mmres2net.models.dla import LEVEL_CHANNELS
from mmres2net.weights.families import CLASSIFIERS, SHARED_HEAD, Recognised
from mmres2net.weights.mapping import COUNTER, rename, stem_names

Target = Literal['official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net']
TARGETS: tuple[Target, ...] = get_args(Target)
HOSTS = ('mmdet', 'mmpretrain')
_HOST_DEPTHS = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
BACKBONE = 'backbone.'


def check_target(recognised: Recognised, target: Target) -> None:
    """Check that ``target`` has the network.

    Raises:
        UserError: It has not; the message says why, and where else the weights can go.
    """
    reason = _obstacle(recognised.row, target)
    if reason:
        others = [other for other in TARGETS if not _obstacle(recognised.row, other)]
        raise UserError(
            f'{recognised.network} cannot be written for {target}: {reason}. Possible: --to {"|".join(others)}'
        )


def _obstacle(row: Arch, target: Target) -> str:
    """Return why ``target`` cannot hold the network; nothing where it can."""
    if target == 'mmres2net':
        return ''
    if row.family == 'cifar':
        return 'no other library has the 32-pixel networks'
    if target == 'official':
        return 'the official release has no squeeze-and-excitation' if row.se_reduction else ''
    if target == 'timm':
        return '' if row.se_reduction in (None, 16) else "timm's squeeze-and-excitation reduces by 16"
    if row.family == 'dla':
        return f'{target} has no deep layer aggregation'
    faults = {
        f'{target} has no squeeze-and-excitation': row.se_reduction is not None,
        f'{target} has no Res2NeXt (cardinality {row.cardinality})': row.cardinality > 1,
        f'{target} has no Res2Net of one scale': row.scales == 1,
        f'{target} has depths 50, 101 and 152, not {row.depths}': row.depths not in _HOST_DEPTHS,
        'mmdet builds every Res2Net with a deep stem and average pooling in the shortcuts (v1b), and these weights are '
        'of one without': target == 'mmdet' and not (row.deep_stem and row.avg_down),
    }
    return next((text for text, holds in faults.items() if holds), '')


def network_for(target: Target, ours: Mapping[str, Tensor], row: Arch) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return a network by the names of ``target``, and sentences about what was added.

    Args:
        target: Whose names.
        ours: The network by our names.
        row: What network it is.
    """
    layers = stem_names(target, row.deep_stem)
    state = {rename(name, layers): tensor for name, tensor in ours.items()}
    if target != 'official' or row.family != 'dla':
        return state, ()
    unused = unused_projections(row.depths)
    count = sum(tensor.numel() for name, tensor in unused.items() if name.endswith(('weight', 'bias')))
    return {**state, **unused}, (
        f'{count:,} numbers of projections that the official code holds and never runs, written as zeros',
    )


def unused_projections(depths: Sequence[int]) -> dict[str, Tensor]:
    """Return zeros for the projections that the official DLA holds in every tree of several levels, by name."""
    found: dict[str, Tensor] = {}
    for i, levels in enumerate(depths):
        in_channels, out_channels = LEVEL_CHANNELS[i + 1 : i + 3]
        for depth in range(levels - 1):
            tree = f'level{i + 2}{".tree1" * depth}.project'
            found[f'{tree}.0.weight'] = torch.zeros(out_channels, in_channels, 1, 1)
            found |= {f'{tree}.1.{name}': torch.zeros(out_channels) for name in ('weight', 'bias', 'running_mean')}
            found[f'{tree}.1.running_var'] = torch.ones(out_channels)
            found[f'{tree}.1.{COUNTER}'] = torch.tensor(0)
    return found


def classifier_of(state: Mapping[str, Tensor], recognised: Recognised) -> dict[str, str]:
    """Return the names of the classifier in ``state`` by those of an official one (``fc.weight``, ``fc.bias``)."""
    place = CLASSIFIERS[1] if recognised.prefix else CLASSIFIERS[0]
    return {f'fc.{part}': f'{place}{part}' for part in ('weight', 'bias') if f'{place}{part}' in state}


def assemble(
    network: Mapping[str, Tensor], state: Mapping[str, Tensor], recognised: Recognised, target: Target
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Return what a file for ``target`` holds, and which names of ``state`` beside the network went into it.

    A whole model stays one where ``target`` has whole models. A classifier goes with a backbone to libraries of
    classification; mmpretrain's form of that is a whole model.

    Args:
        network: The network by the names of ``target``.
        state: All of the file that it came from.
        recognised: What that file was recognised as.
        target: Whose file is written.
    """
    if recognised.prefix and target in (*HOSTS, 'mmres2net'):
        return _whole(network, state, recognised, target)
    if target == 'mmdet':
        return dict(network), frozenset()
    classifier = classifier_of(state, recognised)
    used = frozenset(classifier.values())
    if target == 'mmpretrain' and classifier:
        head = {f'head.{name}': state[place] for name, place in classifier.items()}
        return {**{BACKBONE + name: tensor for name, tensor in network.items()}, **head}, used
    return {**network, **{name: state[place] for name, place in classifier.items()}}, used


def _whole(
    network: Mapping[str, Tensor], state: Mapping[str, Tensor], recognised: Recognised, target: Target
) -> tuple[dict[str, Tensor], frozenset[str]]:
    in_head = 'layer4.' if recognised.shared_head else ''
    if in_head and target in HOSTS:
        raise UserError(f'{target} has no Res2Net stage as a shared head, which this detector has: add --backbone-only')
    places = (recognised.prefix, *([SHARED_HEAD + in_head] if in_head else []))
    around = {name: tensor for name, tensor in state.items() if not name.startswith(places)}
    inner = {
        (SHARED_HEAD if in_head and name.startswith(in_head) else recognised.prefix) + name: tensor
        for name, tensor in network.items()
    }
    return {**inner, **around}, frozenset(around)
