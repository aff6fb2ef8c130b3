"""Which library named the parameters in a file, told by the names.

A deep stem is named in three ways (:data:`STEM_NAMES`). All other layers have the same names everywhere, so for a plain
stem (v1) only the classifier and the prefix tell the library.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.models.res2net import StagePool
from mmres2net.text import join_some

Family = Literal['official', 'timm', 'mmdet', 'mmpretrain', 'mmres2net']
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
STEMS: Mapping[str, Family | Literal['plain']] = {
    **{'conv1.weight': 'plain', 'base_layer.0.weight': 'plain', 'conv1.0.weight': 'official'},
    **{'stem.0.weight': 'mmdet', 'stem.0.conv.weight': 'mmpretrain'},
}
ROOTS = ('conv1', 'bn1', 'base_layer', *(f'layer{i}' for i in range(1, 5)), *(f'level{i}' for i in range(6)))
_FIRST_BLOCK = re.compile(r'(.*\.)?(layer1\.0|level2\.tree1)\.conv1\.weight')


@dataclass(frozen=True)
class Recognised:
    """What the names in a file tell."""

    family: Family  # the library whose names these are; ours for names that several libraries share
    stage_pool: StagePool | None  # the option of Res2Net in training; None: the names do not tell
    prefix: str  # of the network's parameter names: '' or such as 'backbone.'
    deep_stem: bool
    dla: bool  # deep layer aggregation
    se: bool  # squeeze and excitation
    shared_head: bool  # the last stage is in the RoI head, as in a Faster R-CNN without a pyramid

    def __str__(self) -> str:
        kind = f'Res2Net{"-DLA" if self.dla else ""}{" with a deep stem (v1b)" if self.deep_stem else ""}'
        return f'a {kind}, names of {self.family}{f" under {self.prefix!r}" if self.prefix else ""}'


def recognise(state: Mapping[str, Tensor], *, prefix: str | None = None) -> Recognised:
    """Return what a Res2Net is named by; ``prefix`` None: it is found. A UserError says what is there instead."""
    prefix = _find_prefix(state) if prefix is None else prefix
    inner = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    in_head = {name.removeprefix(SHARED_HEAD) for name in state if name.startswith(SHARED_HEAD + 'layer')}
    dla, se = 'level2.tree1.conv1.weight' in inner, any('.se.fc1.' in name for name in inner)
    if not dla and 'layer1.0.convs.0.weight' not in inner:
        what = f'the blocks under {prefix!r} have no convolutions convs.0, so this is no Res2Net'
        resnet = ' but a ResNet or ResNeXt' if 'layer1.0.conv2.weight' in inner else ''
        raise UserError(f'{what}{resnet}; use published Res2Net weights, or build the network that these are of')
    first = next((name for name in STEMS if name in inner), None)
    if first is None:
        text = f'the file has the stages of a Res2Net (under {prefix!r}), but no stem'
        raise UserError(f'{text}: none of {", ".join(prefix + name for name in STEMS)}')
    family = _family(first, inner, dla or se, 'head.fc.weight' in state)
    # A detector was trained in mmdet and with its function. A backbone alone is what mmdet's detectors start from: the
    # official v1b weights under other names, as their author says (Res2Net-PretrainedModels, issue 39). Our own names
    # go with every stage_pool; other libraries have the official one.
    told = dla or family not in ('mmdet', 'mmres2net')
    pool: StagePool | None = 'mmdet' if family == 'mmdet' and prefix else 'official' if told else None
    return Recognised(family, pool, prefix, STEMS[first] != 'plain', dla, se, bool(in_head))


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


def _family(first: str, inner: Mapping[str, Tensor], only_timm: bool, prefixed_classifier: bool) -> Family:
    stem = STEMS[first]
    if stem == 'mmdet' or stem == 'mmpretrain':
        return stem
    small = first == 'conv1.weight' and tuple(inner[first].shape[2:]) == (3, 3)  # for images of 32 pixels: ours alone
    if prefixed_classifier and stem == 'plain' and not small and not only_timm:
        return 'mmpretrain'
    if any(is_unused_projection(name, inner) for name in inner):
        return 'official'
    if 'fc.weight' in inner and not small:
        return 'timm' if only_timm else 'official'
    return 'mmres2net'
