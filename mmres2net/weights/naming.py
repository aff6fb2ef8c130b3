"""Which network a file holds and whose parameter names it has, told by names and shapes.

A deep stem is named in three ways: by the official release, timm and this project; by mmdet; by mmpretrain
(:data:`STEM_NAMES`). All other layers have the same names everywhere, so for a plain stem (v1) only the classifier and
the prefix tell the library.

The function that the weights were trained with cannot be told where libraries differ under the same names
(``stage_pool`` of :class:`mmres2net.models.Res2Net`); :attr:`Recognised.stage_pool_sure` says when it can.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.models.arch import ARCHS, Arch
from mmres2net.models.res2net import StagePool
from mmres2net.text import join_some

Family = Literal['official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net']
Stem = Family | Literal['plain']
SHARED_HEAD = 'roi_head.shared_head.'
# Layers of a deep stem: our names, which are the official ones, and those of libraries that differ.
STEM_NAMES: Mapping[str, Mapping[str, str]] = {
    'mmdet': {**{f'conv1.{i}': f'stem.{i}' for i in (0, 1, 3, 4, 6)}, 'bn1': 'stem.7'},
    'mmpretrain': {
        **{f'conv1.{3 * i}': f'stem.{i}.conv' for i in range(3)},
        **{'conv1.1': 'stem.0.bn', 'conv1.4': 'stem.1.bn', 'bn1': 'stem.2.bn'},
    },
}
# The first convolution of each kind of stem
STEMS: Mapping[str, Stem] = {
    **{'conv1.weight': 'plain', 'base_layer.0.weight': 'plain', 'conv1.0.weight': 'official'},
    **{'stem.0.weight': 'mmdet', 'stem.0.conv.weight': 'mmpretrain'},
}
ROOTS = ('conv1', 'bn1', 'base_layer', *(f'layer{i}' for i in range(1, 5)), *(f'level{i}' for i in range(6)))
_FIRST_BLOCK = re.compile(r'(.*\.)?(layer1\.0|level2\.tree1)\.conv1\.weight')


@dataclass(frozen=True)
class Recognised:
    """What the names and shapes in a file tell."""

    family: Family  # the library whose names these are; ours for names that several libraries share
    arch: str | None  # the name in mmres2net.models.ARCHS; None: a network outside the table
    row: Arch  # the network; its depths end with the last stage in the file
    stage_pool: StagePool  # the option of mmres2net.models.Res2Net that the weights were trained with
    stage_pool_sure: bool  # the names prove it; otherwise it is the likeliest
    prefix: str  # of the network's parameter names: '' or such as 'backbone.'
    in_channels: int  # of the image
    shared_head: bool = False  # the last stage is in the RoI head, as in a Faster R-CNN without a pyramid

    @property
    def options(self) -> dict[str, Any]:
        """Keywords that build this network as :class:`Res2Net` (or ``Res2NetDLA``, for a row of that family)."""
        row, options = self.row, dict[str, Any](arch=self.arch)
        if self.arch is None:
            keys = ('depths', 'base_width', 'scales', 'cardinality', 'deep_stem', 'avg_down')
            options = {key: getattr(row, key) for key in keys}
            options |= {'se_reduction': row.se_reduction} if row.se_reduction else {}
        elif len(row.depths) < len(ARCHS[self.arch].depths):
            options['out_indices'] = tuple(range(len(row.depths)))
        options |= {} if row.family == 'dla' else {'stage_pool': self.stage_pool}
        return {**options, 'in_channels': self.in_channels}

    @property
    def network(self) -> str:
        """The network in words: its name, or its numbers."""
        row = self.row
        parts = [f'a network of {row.depths} blocks, base width {row.base_width}, {row.scales} scales']
        parts += [f'cardinality {row.cardinality}'] if row.cardinality > 1 else []
        parts += ['deep stem'] if row.deep_stem else []
        parts += ['average pooling in the shortcut'] if row.avg_down else []
        parts += [f'SE of reduction {row.se_reduction}'] if row.se_reduction else []
        return self.arch or ', '.join(parts)

    def __str__(self) -> str:
        parts = [self.network, f'names of {self.family}']
        parts += [f'under {self.prefix!r}'] if self.prefix else []
        parts += [f'{self.in_channels} input channels'] if self.in_channels != 3 else []
        return ', '.join(parts)


def recognise(state: Mapping[str, Tensor], *, prefix: str | None = None) -> Recognised:
    """Return whose weights ``state`` holds and of which network; only names and shapes are read.

    ``prefix`` begins the network's parameter names; None: it is found, if there is one network. A UserError says what
    was found instead of one Res2Net.
    """
    prefix = _find_prefix(state) if prefix is None else prefix
    inner = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    in_head = [name for name in state if name.startswith(SHARED_HEAD + 'layer')]
    network = inner | {name.removeprefix(SHARED_HEAD): state[name] for name in in_head}
    dla = 'level2.tree1.conv1.weight' in network
    if not dla and 'layer1.0.convs.0.weight' not in network:
        raise UserError(_other_network(network, prefix))
    first = next((name for name in STEMS if name in network), None)
    if first is None:
        text = f'the file has the stages of a Res2Net (under {prefix!r}), but no stem'
        raise UserError(f'{text}: none of {", ".join(prefix + name for name in STEMS)}')
    row = _measure(network, STEMS[first])
    family = _family(STEMS[first], row, inner, 'head.fc.weight' in state)
    # A detector was trained in mmdet and with its function. A backbone alone is what mmdet's detectors start from: the
    # official v1b weights under other names, as their author says (Res2Net-PretrainedModels, issue 39). Our own names
    # go with every stage_pool; other libraries have the official one.
    pool: StagePool = 'mmdet' if family == 'mmdet' and prefix else 'official'
    sure = pool == 'mmdet' or dla or family not in ('mmdet', 'mmres2net')
    # Those whose first stages it has, and of these the complete ones
    stages = len(row.depths)
    names = [n for n, a in ARCHS.items() if a.depths[:stages] == row.depths and replace(a, depths=row.depths) == row]
    names = [name for name in names if len(ARCHS[name].depths) == stages] or names
    arch = names[0] if len(names) == 1 else None
    return Recognised(family, arch, row, pool, sure, prefix, network[first].shape[1], bool(in_head))


def stem_names(family: str, deep_stem: bool) -> Mapping[str, str]:
    """Return the names that ``family`` gives to the layers of a stem, by our names, where they differ."""
    return STEM_NAMES.get(family, {}) if deep_stem else {}


def rename(name: str, layers: Mapping[str, str]) -> str:
    """Return the name of a parameter whose layer is renamed by ``layers``."""
    layer, _, parameter = name.rpartition('.')
    return f'{layers.get(layer, layer)}.{parameter}'


def is_unused_projection(name: str, network: Iterable[str]) -> bool:
    """Whether ``name`` belongs to a projection of a tree of several levels, which official DLA files hold unused."""
    head, found, _ = name.partition('.project.')
    return bool(found) and f'{head}.tree1.conv1.weight' not in network


def _find_prefix(state: Mapping[str, Tensor]) -> str:
    prefixes = [match.group(1) or '' for name in state if (match := _FIRST_BLOCK.fullmatch(name))]
    if len(prefixes) == 1:
        return prefixes[0]
    if prefixes:
        raise UserError(f'the file holds {len(prefixes)} networks, under {prefixes}; choose one with prefix (--prefix)')
    what = 'the file holds no Res2Net: no name ends with layer1.0.conv1.weight or level2.tree1.conv1.weight'
    raise UserError(f'{what}; it has {len(state)} names: {join_some(state)}')


def _other_network(network: Mapping[str, Tensor], prefix: str) -> str:
    """Return what a network with the stages of a ResNet is, if it is not a Res2Net."""
    if 'layer1.0.conv2.weight' not in network:
        return f'this is not a Res2Net: the blocks under {prefix!r} have neither convs.0 nor conv2'
    layers = 2 if 'layer1.0.conv3.weight' not in network else 3
    width, inputs = network['layer1.0.conv2.weight'].shape[:2]
    name = f'{"ResNet" if width == inputs else "ResNeXt"}-{2 + layers * sum(_depths(network))}'
    what = f'this is a {name} with the names of torchvision (its blocks have one 3x3 convolution, conv2, and no convs)'
    return f'{what}; use published Res2Net weights, or build a ResNet for these'


def _depths(network: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the number of blocks of each stage, up to the first missing stage."""
    blocks = (
        next(block for block in itertools.count() if f'layer{stage}.{block}.conv1.weight' not in network)
        for stage in range(1, 5)
    )
    return tuple(itertools.takewhile(bool, blocks))


def _measure(network: Mapping[str, Tensor], stem: Stem) -> Arch:
    """Return the network, by its names and by the shapes of a block in the first stage, where planes are 64."""
    dla, depths, block, conv = 'level2.tree1.conv1.weight' in network, _depths(network), 'layer1.0', 'convs.0'
    if dla:
        levels = (
            next((depth for depth in range(1, 8) if f'level{level}{".tree1" * depth}.conv1.weight' in network), 0)
            for level in range(2, 6)
        )
        depths, block = tuple(itertools.takewhile(bool, levels)), 'level2.tree1'
        conv = conv if f'{block}.{conv}.weight' in network else 'conv2'
    elif depths[0] > 1:  # in the 32-pixel networks the first block is a plain ResNeXt block
        block = 'layer1.1'
    try:
        width, base_width = network[f'{block}.{conv}.weight'].shape[:2]
        scales = network[f'{block}.conv1.weight'].shape[0] // width
    except KeyError as error:
        raise UserError(f'the file lacks {error.args[0]!r}: it holds a part of a network') from None
    count = sum(re.fullmatch(rf'{re.escape(block)}\.conv(s\.\d+|2)\.weight', name) is not None for name in network)
    if count != max(scales - 1, 1):
        what = f'{block} has {count} 3x3 convolutions of {width} channels, but its first one feeds {scales} splits'
        raise UserError(f'{what}: the file is damaged, or of a network that is no Res2Net')
    if dla:
        return Arch(depths, base_width, scales, width // base_width, family='dla')
    reduction = network.get(f'{block}.se.fc1.weight')
    shortcut = network.get('layer1.0.downsample.1.weight')
    small = len(depths) == 3 and stem == 'plain' and tuple(network['conv1.weight'].shape[2:]) == (3, 3)
    return Arch(
        *(depths, base_width, scales, width // base_width),
        deep_stem=stem != 'plain',
        avg_down=shortcut is not None and shortcut.dim() == 4,
        se_reduction=None if reduction is None else reduction.shape[1] // reduction.shape[0],
        family='cifar' if small else 'res2net',
    )


def _family(stem: Stem, row: Arch, inner: Mapping[str, Tensor], prefixed_classifier: bool) -> Family:
    if stem == 'mmdet' or stem == 'mmpretrain':
        return stem
    if prefixed_classifier and stem == 'plain' and row.family == 'res2net' and not row.se_reduction:
        return 'mmpretrain'
    if any(is_unused_projection(name, inner) for name in inner):
        return 'official'
    if 'fc.weight' in inner and row.family != 'cifar':
        return 'timm' if row.family == 'dla' or row.se_reduction else 'official'
    return 'mmres2net'
