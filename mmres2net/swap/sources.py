"""The backbones that can be swapped, the ResNets of mmdet, mmseg and mmpretrain and our own, and their options."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmres2net.errors import UserError

Cfg = dict[str, Any]
TYPES = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'SEResNet', 'SEResNeXt', 'ResNeSt', 'Res2Net')
OURS = ('Res2Net', 'Res2NetDLA')
WRAPPER = 'WithStem'  # ours: returns the outputs of its own `backbone`, and of the stem
# Options of the libraries' ResNets that differ from ours by default.
DEFAULTS: dict[str, Cfg] = {
    'mmdet': {'out_indices': (0, 1, 2, 3), 'norm_eval': True, 'zero_init_residual': True},
    'mmseg': {'out_indices': (0, 1, 2, 3), 'norm_eval': False, 'zero_init_residual': True},
    'mmpretrain': {'out_indices': (3,), 'norm_eval': False, 'zero_init_residual': True},
}
# Options of the libraries that a Res2Net has too, and those that are translated
SAME = (
    *('in_channels', 'base_channels', 'multi_grid', 'contract_dilation', 'conv_cfg', 'norm_cfg', 'norm_eval'),
    *('drop_path_rate', 'zero_init_residual', 'with_cp'),
)
TRANSLATED = ('num_stages', 'out_indices', 'strides', 'dilations', 'frozen_stages', 'dcn', 'stage_with_dcn', 'plugins')
WEIGHTS = ('init_cfg', 'pretrained')
# Options that describe the old network
OLD = (
    *('depth', 'style', 'deep_stem', 'avg_down', 'stem_channels', 'expansion', 'groups'),
    *('base_width', 'width_per_group', 'scales', 'radix', 'reduction_factor', 'avg_down_stride', 'se_ratio'),
)
OLD_OURS = ('arch', 'depths', 'base_width', 'scales', 'cardinality', 'deep_stem', 'avg_down', 'se_reduction')


@dataclass(frozen=True)
class Source:
    """A backbone that is to be swapped."""

    path: str  # in the config, such as `model.backbone`
    parents: tuple[Cfg, ...]  # the dicts that hold it, outermost first
    scope: str  # the registry scope there: the library that builds what is nested in it
    library: str  # the package of its type
    name: str  # its type without the package
    options: Cfg  # without `type`

    @property
    def is_ours(self) -> bool:
        return self.library == 'mmres2net'

    @property
    def title(self) -> str:
        depth = self.options.get('depth')
        return f'{self.library}.{self.name}' + (f' of depth {depth}' if depth else '')

    def __str__(self) -> str:
        return f'{self.path} ({self.title})'


def find_source(cfg: Config) -> Source:
    """Return the backbone of ``cfg``; a UserError if there is none, there are several, or it cannot be swapped."""
    found = list(_walk(cfg.get('model') or {}, 'model', (), cfg.get('default_scope') or ''))
    if not found:
        raise UserError("this config has no network under a key 'backbone' in its model, so there is nothing to swap")
    if len(found) > 1:
        paths = ' and '.join(path for path, _, _ in found)
        text = f'this config combines models that were trained separately ({paths})'
        raise UserError(f'{text}; swap the backbone in the configs that they are trained with')
    path, parents, scope = found[0]
    backbone = parents[-1]['backbone']
    kind = backbone.get('type')
    if kind is None:
        raise UserError(f'{path} has no type, so the swap cannot know what network it is')
    library, name = type_library(kind) or scope, type_name(kind)
    known = OURS if library == 'mmres2net' else TYPES if library in DEFAULTS else ()
    if name not in known:
        what = f'{path} is {f"{library}." if library else ""}{name}, not a ResNet of {", ".join(DEFAULTS)}'
        raise UserError(f'{what}; start from a config of the same model with one of {", ".join(TYPES)}')
    options = {key: value for key, value in backbone.items() if key not in ('type', '_scope_')}
    return Source(path, parents, scope, library, name, options)


def _walk(node: Any, path: str, parents: tuple[Cfg, ...], scope: str) -> Iterator[tuple[str, tuple[Cfg, ...], str]]:
    """Yield path, holding dicts and registry scope of every backbone below ``node``."""
    if isinstance(node, dict):
        scope, parents = node.get('_scope_', scope), (*parents, node)
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        if not isinstance(value, dict) or 'backbone' not in str(key) or type_name(value.get('type')) == WRAPPER:
            yield from _walk(value, f'{path}.{key}', parents, scope)
        elif key == 'backbone':
            yield f'{path}.backbone', parents, value.get('_scope_', scope)
        else:
            what = f'{path}.{key} is a second network, which has to fit the first'
            raise UserError(f"{what}; the swap knows only networks under the key 'backbone'")


def type_name(kind: Any) -> str:
    """Return the name of a ``type`` in a config, which is a name, a name with its package, or a class."""
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def type_library(kind: Any) -> str:
    """Return the package of a ``type`` in a config; empty if it says none."""
    module = kind.__module__ if isinstance(kind, type) else str(kind).rpartition('.')[0]
    return module.partition('.')[0]


def carry(source: Source) -> tuple[Cfg, list[str]]:
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
