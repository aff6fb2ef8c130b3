"""Options of a ResNet as options of a Res2Net: which are carried over, and which belong to the old network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmres2net.errors import UserError
from mmres2net.models.arch import Arch
from mmres2net.swap.sources import DEFAULTS, Cfg, Source

SAME = (
    *('in_channels', 'multi_grid', 'contract_dilation', 'conv_cfg', 'norm_cfg', 'norm_eval', 'drop_path_rate'),
    *('zero_init_residual', 'with_cp'),
)
TRANSLATED = ('num_stages', 'out_indices', 'strides', 'dilations', 'frozen_stages', 'dcn', 'stage_with_dcn', 'plugins')
WEIGHTS = ('init_cfg', 'pretrained')
# They describe the old network.
OLD = (
    *('depth', 'style', 'deep_stem', 'avg_down', 'stem_channels', 'base_channels', 'expansion', 'groups'),
    *('base_width', 'width_per_group', 'scales', 'radix', 'reduction_factor', 'avg_down_stride', 'se_ratio'),
)
OLD_OURS = ('arch', 'depths', 'base_width', 'scales', 'cardinality', 'deep_stem', 'avg_down', 'se_reduction')


def carry(source: Source, row: Arch) -> tuple[Cfg, list[str]]:
    """Return the options that the new backbone keeps, and lines that say so; a UserError if an option is unknown."""
    given = {key: value for key, value in source.options.items() if value is not None}
    if source.is_ours:
        kept = {key: value for key, value in given.items() if key not in (*OLD_OURS, 'init_cfg')}
        dropped = [key for key in given if key in OLD_OURS and key != 'arch']
    else:
        unknown = {key: value for key, value in given.items() if not is_old_option(key) and key not in WEIGHTS}
        if unknown:
            what = f'{source} has {_listed(unknown)}, which a Res2Net does not have'
            raise UserError(f'{what}; remove it from a copy of the config if the model works without')
        kept = _translate({**DEFAULTS[source.library], **given})
        dropped = [key for key in given if key in OLD]
        if row.family == 'cifar':  # of three stages, whose last replaces the fourth
            shaped = [key for key in ('strides', 'dilations', 'multi_grid', 'dcn', 'plugins') if key in kept]
            if shaped or kept['out_indices'] != (3,):
                listed = _listed({key: kept[key] for key in ('out_indices', *shaped)})
                what = f'{source} has {listed}, but a Res2NeXt-29 has three stages'
                raise UserError(f'{what}; the swap knows only out_indices=(3,), the last one, and plain stages')
            kept |= {'out_indices': (2,), 'frozen_stages': min(kept.get('frozen_stages', -1), 3)}
    lines = [f'{source.path} keeps {_listed(kept)}'] if kept else []
    if dropped:
        lines.append(f'{source.path} drops {_listed({key: given[key] for key in dropped})}: options of the old network')
    return copy.deepcopy(kept), lines


def is_old_option(name: str) -> bool:
    """Whether ``name`` is an option of the libraries' ResNets, other than their initial weights."""
    return name in (*SAME, *TRANSLATED, *OLD)


def _translate(old: Cfg) -> Cfg:
    """Return options for four stages, of which ``out_indices`` says how many are built."""

    def padded(values: Sequence[Any], filler: Any) -> tuple[Any, ...]:
        kept = values[: old.get('num_stages', 4)]
        return (*kept, *[filler] * (4 - len(kept)))

    new: Cfg = {'out_indices': tuple(old['out_indices'])}
    new |= {key: padded(old[key], filler) for key, filler in (('strides', 2), ('dilations', 1)) if key in old}
    if 'frozen_stages' in old:  # a stage that is not used is not built
        new['frozen_stages'] = min(old['frozen_stages'], max(old['out_indices']) + 1)
    new |= {key: old[key] for key in SAME if key in old}
    used = padded(old.get('stage_with_dcn', ()), False)
    if 'dcn' in old and any(used):
        new |= {'dcn': old['dcn'], 'stage_with_dcn': used}
    if old.get('plugins'):
        new['plugins'] = [
            {**plugin, 'stages': padded(plugin['stages'], False)} if 'stages' in plugin else dict(plugin)
            for plugin in old['plugins']
        ]
    return new


def _listed(options: Cfg) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in options.items())
