"""Whose weights a file holds, and of which network: told from names and shapes alone.

What can be told. A deep stem is named in three ways: by the official release, timm and this project; by mmdet; by
mmpretrain. All other layers of the network are named alike everywhere, so that for a plain stem (v1) only classifier
and prefix are left to tell by: :attr:`Recognised.naming` lists all who name a file's weights as they are.

What cannot be told is the function that the weights were trained with, where libraries differ under the same names
(``stage_pool`` of :class:`mmres2net.models.Res2Net`); :attr:`Recognised.stage_pool_sure` says when it can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.models.arch import ARCHS, Arch
from mmres2net.models.res2net import StagePool

Family = Literal['official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net']
SHARED_HEAD = 'roi_head.shared_head.'
CLASSIFIERS = ('fc.', 'head.fc.')
# The first convolution of a stem under the three ways to name one
STEMS = {
    'conv1.weight': 'plain',
    'base_layer.0.weight': 'plain',
    'conv1.0.weight': 'official',
    'stem.0.weight': 'mmdet',
    'stem.0.conv.weight': 'mmpretrain',
}
_FIRST_BLOCK = re.compile(r'(?:(.*)\.)?(layer1\.0|level2\.tree1)\.conv1\.weight')
_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): 'ResNet-50',
    (3, 4, 23, 3): 'ResNet-101',
    (3, 8, 36, 3): 'ResNet-152',
}
_BASIC_RESNETS: dict[tuple[int, ...], str] = {(2, 2, 2, 2): 'ResNet-18', (3, 4, 6, 3): 'ResNet-34'}


@dataclass(frozen=True)
class Recognised:
    """What a file's names and shapes tell.

    Args:
        family: Whose names these are; where several name alike, the first of ``naming``.
        naming: All whose names these are, for messages.
        arch: The name in :data:`mmres2net.models.ARCHS`; None: a network outside the table.
        row: The network. Its depths end with the last stage that the file has.
        stage_pool: The option of :class:`mmres2net.models.Res2Net` that the weights were trained with.
        stage_pool_sure: The names prove ``stage_pool``; otherwise it is the likeliest.
        prefix: What stands before the network's names: '' or such as ``'backbone.'``.
        in_channels: Channels of the image.
        shared_head: The last stage lies in the RoI head, as in a Faster R-CNN without a pyramid.
    """

    family: Family
    naming: str
    arch: str | None
    row: Arch
    stage_pool: StagePool
    stage_pool_sure: bool
    prefix: str
    in_channels: int
    shared_head: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Keywords that build this network as :class:`Res2Net` (or ``Res2NetDLA``, where the row is of that family)."""
        shape: dict[str, Any] = {'arch': self.arch}
        if self.arch is None:
            row = self.row
            shape = {'depths': row.depths, 'base_width': row.base_width, 'scales': row.scales}
            shape |= {'cardinality': row.cardinality, 'deep_stem': row.deep_stem, 'avg_down': row.avg_down}
            shape |= {'se_reduction': row.se_reduction} if row.se_reduction else {}
        if self.arch is not None and len(self.row.depths) < len(ARCHS[self.arch].depths):
            shape['out_indices'] = tuple(range(len(self.row.depths)))
        if self.row.family != 'dla':
            shape['stage_pool'] = self.stage_pool
        return {**shape, 'in_channels': self.in_channels}

    @property
    def network(self) -> str:
        """The network in words: its name, or its numbers."""
        return self.arch or _numbers(self.row)

    def __str__(self) -> str:
        parts = [self.network, f'names of {self.naming}']
        parts += [f'under {self.prefix!r}'] if self.prefix else []
        parts += [f'{self.in_channels} input channels'] if self.in_channels != 3 else []
        return ', '.join(parts)


def recognise(state: Mapping[str, Tensor], *, prefix: str | None = None) -> Recognised:
    """Return whose weights ``state`` holds and of which network.

    Args:
        state: Weights by name, as :func:`mmres2net.weights.unwrap` returns them; only names and shapes are read.
        prefix: What stands before the network's names; None: found, if there is one network alone.

    Raises:
        UserError: No Res2Net is in there, or several, or a part of one; the message says what was found.
    """
    prefix = _find_prefix(state) if prefix is None else prefix
    inner = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    shared = {name[len(SHARED_HEAD) :]: tensor for name, tensor in state.items() if name.startswith(SHARED_HEAD)}
    shared_head = any(name.startswith('layer') for name in shared)
    network = {**inner, **shared} if shared_head else inner
    dla = 'level2.tree1.conv1.weight' in network
    if not dla:
        _refuse_other_networks(network, prefix)
    first = next((name for name in STEMS if name in network), None)
    if first is None:
        raise UserError(
            f'the stages of a Res2Net are there (under {prefix!r}), but no stem: none of '
            f'{", ".join(prefix + name for name in STEMS)}; a network without its stem would train from a random one'
        )
    row = _measure_dla(network) if dla else _measure(network, STEMS[first])
    arch = _row_of(row)
    family, naming = _family(STEMS[first], row, inner, state, prefix)
    stage_pool, sure = _stage_pool(family, row, prefix)
    return Recognised(family, naming, arch, row, stage_pool, sure, prefix, network[first].shape[1], shared_head)


def _find_prefix(state: Mapping[str, Tensor]) -> str:
    found = [match.group(1) for name in state if (match := _FIRST_BLOCK.fullmatch(name))]
    prefixes = [f'{path}.' if path else '' for path in found]
    if len(prefixes) == 1:
        return prefixes[0]
    if prefixes:
        raise UserError(f'{len(prefixes)} networks are in there, under {prefixes}; name one of them with prefix')
    names = ', '.join(list(state)[:5])
    raise UserError(
        'no Res2Net is in there: no name ends with layer1.0.conv1.weight or level2.tree1.conv1.weight; '
        f'the first of its {len(state)} names: {names}'
    )


def _refuse_other_networks(network: Mapping[str, Tensor], prefix: str) -> None:
    """Say what a network with the stages of a ResNet is, if it is not a Res2Net."""
    if 'layer1.0.convs.0.weight' in network:
        return
    if 'layer1.0.conv2.weight' not in network:
        raise UserError(f'the blocks under {prefix!r} have neither convs.0 nor conv2: no Res2Net')
    depths, basic = _depths(network), 'layer1.0.conv3.weight' not in network
    grouped = network['layer1.0.conv2.weight'].shape[0] != network['layer1.0.conv2.weight'].shape[1]
    known = (_BASIC_RESNETS if basic else _RESNETS).get(depths)
    name = 'ResNeXt' if grouped else known or f'ResNet of {depths} blocks'
    raise UserError(
        f'this is a {name}, named as in torchvision (its blocks have one 3x3 convolution, conv2, and no convs); it has '
        'no Res2Net weights. Take published Res2Net weights, or build a ResNet for these'
    )


def _depths(network: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return how many blocks each stage has, up to the first stage that is not there."""
    depths: list[int] = []
    while True:
        stage, block = len(depths) + 1, 0
        while f'layer{stage}.{block}.conv1.weight' in network:
            block += 1
        if not block:
            return tuple(depths)
        depths.append(block)


def _measure(network: Mapping[str, Tensor], stem: str) -> Arch:
    depths = _depths(network)
    # Not the first block, where there is another: those of the 32-pixel networks are plain ResNeXt blocks.
    block = 'layer1.1' if depths[0] > 1 else 'layer1.0'
    base_width, scales, cardinality = _measure_block(network, block, 'convs.0')
    reduction = network.get(f'{block}.se.fc1.weight')
    small = len(depths) == 3 and stem == 'plain' and tuple(network['conv1.weight'].shape[2:]) == (3, 3)
    return Arch(
        depths,
        base_width,
        scales,
        cardinality,
        deep_stem=stem != 'plain',
        avg_down='layer1.0.downsample.1.weight' in network and network['layer1.0.downsample.1.weight'].dim() == 4,
        se_reduction=None if reduction is None else reduction.shape[1] // reduction.shape[0],
        family='cifar' if small else 'res2net',
    )


def _measure_dla(network: Mapping[str, Tensor]) -> Arch:
    levels: list[int] = []
    while True:
        level, depth = f'level{len(levels) + 2}', 1
        while f'{level}{".tree1" * depth}.conv1.weight' not in network and depth < 8:
            depth += 1
        if depth == 8:
            break
        levels.append(depth)
    conv = 'convs.0' if 'level2.tree1.convs.0.weight' in network else 'conv2'
    return Arch(tuple(levels), *_measure_block(network, 'level2.tree1', conv), family='dla')


def _measure_block(network: Mapping[str, Tensor], block: str, conv: str) -> tuple[int, int, int]:
    """Return base width, scales and cardinality of a block in the first stage, where planes are 64."""
    try:
        width, base_width = network[f'{block}.{conv}.weight'].shape[:2]
        scales = network[f'{block}.conv1.weight'].shape[0] // width
    except KeyError as error:
        raise UserError(f'the file lacks {error.args[0]!r}: it holds a part of a network') from None
    count = sum(re.fullmatch(rf'{re.escape(block)}\.conv(s\.\d+|2)\.weight', name) is not None for name in network)
    if count != max(scales - 1, 1):
        raise UserError(
            f'{block} has {count} 3x3 convolutions of {width} channels, but a first convolution that feeds '
            f'{scales} splits: the file is damaged, or of a network that is no Res2Net'
        )
    return base_width, scales, width // base_width


def _row_of(row: Arch) -> str | None:
    """Return the name of the table's row whose first stages ``row`` has; None where there is none, or several."""
    stages = len(row.depths)
    names = [
        name
        for name, known in ARCHS.items()
        if known.depths[:stages] == row.depths and replace(known, depths=row.depths) == row
    ]
    whole = [name for name in names if len(ARCHS[name].depths) == stages]
    return (whole or names)[0] if len(whole or names) == 1 else None


def _family(
    stem: str, row: Arch, inner: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str
) -> tuple[Family, str]:
    if stem == 'mmdet':
        return 'mmdet', 'mmdet'
    if stem == 'mmpretrain':
        return 'mmpretrain', 'mmpretrain'
    if row.family == 'cifar':
        return 'mmres2net', 'mmres2net'
    if prefix:
        if 'head.fc.weight' in state and stem == 'plain' and row.family == 'res2net' and not row.se_reduction:
            return 'mmpretrain', "mmpretrain's or mmres2net's backbone in a classifier"
        return 'mmres2net', 'mmres2net in a whole model'
    if any(is_unused_projection(name, inner) for name in inner):
        return 'official', 'the official release'
    if 'fc.weight' not in inner:
        return 'mmres2net', _all_alike(stem, row)
    if row.family == 'dla' or row.se_reduction:
        return 'timm', 'timm'
    return 'official', 'the official release (the same as timm)'


def _all_alike(stem: str, row: Arch) -> str:
    """Return all who name a backbone without a classifier by the official names."""
    names = ['mmres2net', 'timm'] if row.se_reduction else ['mmres2net', 'the official release', 'timm']
    if stem == 'plain' and row.family == 'res2net' and not row.se_reduction and row.cardinality == 1:
        names.append('mmpretrain')
    return f'{", ".join(names[:-1])} or {names[-1]}'


def _stage_pool(family: Family, row: Arch, prefix: str) -> tuple[StagePool, bool]:
    if family == 'mmdet':
        # A detector was trained in mmdet and by its function. A backbone alone is what mmdet's detectors start from:
        # the official v1b weights under other names, as their author says (Res2Net-PretrainedModels, issue 39).
        return ('mmdet', True) if prefix else ('official', False)
    # Our own names go with every stage_pool; other libraries know the official one alone.
    return 'official', family != 'mmres2net' or row.family == 'dla'


def is_unused_projection(name: str, network: Mapping[str, Tensor]) -> bool:
    """Whether ``name`` belongs to a projection of a tree of several levels.

    The official DLA files hold them, and the official code never runs them.
    """
    head, found, _ = name.partition('.project.')
    return bool(found) and f'{head}.tree1.conv1.weight' not in network


def _numbers(row: Arch) -> str:
    parts = [f'a network of {row.depths} blocks, base width {row.base_width}, {row.scales} scales']
    parts += [f'cardinality {row.cardinality}'] if row.cardinality > 1 else []
    parts += ['deep stem'] if row.deep_stem else []
    parts += ['average pooling in the shortcut'] if row.avg_down else []
    parts += [f'SE of reduction {row.se_reduction}'] if row.se_reduction else []
    return ', '.join(parts)
