"""Heads in a swap: most stay unchanged, but not a shared head that is the last stage of the old network."""

from __future__ import annotations

import copy

from mmengine.config import Config, ConfigDict

from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.models.arch import ARCHS, find_arch
from mmres2net.models.dla import LEVEL_CHANNELS
from mmres2net.models.res2net import EXPANSION, STAGE_PLANES
from mmres2net.swap.sources import Cfg, Source, type_name

KEPT = ('stage', 'stride', 'dilation', 'norm_cfg', 'norm_eval', 'with_cp', 'dcn')
DROPPED = ('type', '_scope_', 'depth', 'style', 'init_cfg', 'pretrained')
OURS = 'mmres2net.Res2LayerHead'


def swap_shared_heads(cfg: Config, arch: str, start: Cfg | None) -> list[str]:
    """Replace every shared head that is a stage of a ResNet by the stage of ``arch``; return a line for each.

    Raises:
        UserError: It has an option that our head does not have.
    """
    lines = []
    for path, holder in list(walk(cfg.model, 'model')):
        old: Cfg = holder.get('shared_head') or {}
        name = type_name(old.get('type'))
        if name == 'Res2LayerHead':
            new = {key: copy.deepcopy(value) for key, value in old.items() if key != 'init_cfg'} | {'arch': arch}
        elif name == 'ResLayer':
            new = {'type': OURS, 'arch': arch, **_carry(f'{path}.shared_head', old)}
        else:
            continue
        weights = 'weights of the same file' if start else 'random weights'
        lines.append(f'{path}.shared_head {name} -> {OURS} {arch}, {weights}')
        holder['shared_head'] = ConfigDict(new | ({'init_cfg': start} if start else {}))
    return lines


def _carry(path: str, old: Cfg) -> Cfg:
    unknown = [key for key, value in old.items() if key not in (*KEPT, *DROPPED) and value is not None]
    if unknown:
        raise UserError(f'{path} has {", ".join(unknown)}, which {OURS} does not have; remove it from a copy')
    return {key: copy.deepcopy(old[key]) for key in KEPT if old.get(key) is not None}


def fit_heads(source: Source, arch: str) -> list[str]:
    """Check that necks and heads get the channels that they expect; return a line for what had to change.

    Only the linear head after a CIFAR network changes: that has three stages, a ResNet has four.

    Raises:
        UserError: The channels differ.
    """
    if source.is_cifar:
        return _fit_classifier(source, arch)
    old = stage_channels(source.options.get('arch', 'res2net50_26w_4s')) if source.is_ours else source.channels()
    new = stage_channels(arch)
    if old != new:
        others = [name for name in ARCHS if stage_channels(name) == old]
        way = f'choose from {", ".join(others)}' if others else 'start from a config with a ResNet of depth 50 or more'
        raise UserError(
            f'{source.path} ({source.title}) returns {_numbers(old)} channels, which necks and heads expect, and '
            f'{arch} returns {_numbers(new)}; {way}, or write a config with other in_channels'
        )
    return []


def stage_channels(arch: str) -> tuple[int, ...]:
    """Return the channels of the stages of ``arch``, an official name or timm's alias."""
    row = find_arch(arch)
    if row.family == 'dla':
        return LEVEL_CHANNELS[2:]
    return tuple(planes * EXPANSION for planes in STAGE_PLANES[: len(row.depths)])


def _fit_classifier(source: Source, arch: str) -> list[str]:
    holder = source.parents[-1]
    head, neck = holder.get('head') or {}, holder.get('neck') or {}
    old, new = source.channels()[-1], stage_channels(arch)[-1]
    if head.get('in_channels') != old or type_name(neck.get('type')) != 'GlobalAveragePooling':
        raise UserError(
            f'{source.path} ({source.title}) returns {old} channels and {arch} {new}; the swap can adapt only a pooled '
            f'linear head with in_channels={old}'
        )
    head['in_channels'] = new
    path = source.path.removesuffix('backbone') + 'head.in_channels'
    return [f'{path} {old} -> {new}: the last of three stages replaces the fourth']


def _numbers(values: tuple[int, ...]) -> str:
    return ', '.join(str(value) for value in values)
