"""What differs between the sides: the settings of their resolved configs, key by key, and their starting weights."""

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmres2net.compare.result import Run, Setting, Side, Start
from mmres2net.engine.build import scope_of
from mmres2net.engine.config import READ_ELSEWHERE
from mmres2net.engine.embedded import registered_only, saved_config
from mmres2net.errors import UserError
from mmres2net.files import digest_of
from mmres2net.init_cfg import pretrained_nodes
from mmres2net.models import ALIASES
from mmres2net.weights.fetching import PUBLISHED, origin_of

ARCHITECTURE, START, SEED, OUTPUT, OTHER = 'architecture', 'starting weights', 'seed', 'name or output', ''
RANDOM, ABSENT, LONGEST = 'random weights', '-', 160
READ = {*inspect.signature(Runner.__init__).parameters, *READ_ELSEWHERE, 'auto_scale_lr'}  # others are helpers of files
BACKBONE = re.compile(r'model\.(?:.+\.)?(?:backbone|shared_head)\.')
BELONGS = {
    r'(model\.)?data_preprocessor\.(mean|std|bgr_to_rgb|to_rgb|rgb_to_bgr)': 'input normalization',
    r'model\..*in_channels': 'channels of the backbone',
    r'randomness\.seed': SEED,
    r'default_hooks\.checkpoint\.save_best': OTHER,
    r'(work_dir|experiment_name|visualizer|vis_backends|log_level|log_processor|launcher|resume)\b.*': OUTPUT,
    r'(default_hooks\.(logger|timer|visualization|results|checkpoint|time_limit)|custom_imports|env_cfg)\b.*': OUTPUT,
    r'\w+_dataloader\.(num_workers|persistent_workers|prefetch_factor|pin_memory)': OUTPUT,
}
# Options of a backbone that are its architecture; all others that both constructors know are settings of the training.
OF_ARCHITECTURE = re.compile(
    'type|arch|depths?|base_width|base_channels|stem_channels|scales|groups|cardinality|width_per_group|family|'
    'deep_stem|avg_down|se_reduction|stage_pool|style'
)
# What None means in the libraries and here.
USUAL = {'strides': (1, 2, 2, 2), 'dilations': (1, 1, 1, 1), 'out_indices': (0, 1, 2, 3), 'contract_dilation': False}
USUAL |= {'stage_with_dcn': (False,) * 4, 'norm_cfg': {'type': 'BN'}, 'frozen_stages': -1}


def settings_of(sides: Sequence[Side]) -> tuple[Setting, ...]:
    """Return the settings that differ between the sides' configs, those that do not belong to the backbone first.

    Options of backbones are compared with the defaults of their constructors filled in. Within a side, the configs of
    its runs may differ in seed and outputs; anything else is a setting of its own with the run's number.
    """
    flat = [[_flat_config(run) for run in side.runs] for side in sides]
    found = _compared([runs[0] for runs in flat])
    for side, (first, *others) in zip(sides, flat, strict=True):
        for number, run in enumerate(others, 2):
            for one in _compared([first, run]):
                if one.belongs not in (SEED, OUTPUT):
                    text = f'run 1: {one.values[0]}; run {number}: {one.values[1]}'
                    values = tuple(text if each is side else ABSENT for each in sides)
                    found.append(Setting(f'{side.name}: {one.key}', values, OTHER))
    return tuple(sorted(found, key=lambda one: (bool(one.belongs), one.key)))


def _compared(configs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    found = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key, ABSENT) for config in configs]
        if any(not _same(key, values[0], value) for value in values[1:]):
            found.append(Setting(key, tuple(str(value)[:LONGEST] for value in values), _belongs(key, values)))
    return found


def _same(key: str, one: Any, other: Any) -> bool:
    if key.endswith(('backbone.strides', 'backbone.dilations')) and isinstance(one, tuple) and isinstance(other, tuple):
        return all(a == b for a, b in zip(one, other, strict=False))  # a network of three stages has no fourth value
    if BACKBONE.match(key) and ABSENT in (one, other):  # an option that one of the two does not have
        return not (other if one == ABSENT else one)
    return bool(one == other)


def _belongs(key: str, values: Sequence[Any]) -> str:
    """Return what a setting belongs to that differs."""
    place = BACKBONE.match(key)
    if place:
        option = key[place.end() :].split('.')[0]
        if option in ('init_cfg', 'pretrained'):
            return START
        lacking = ABSENT in values and 'drop' not in option  # an option that one of the constructors does not have
        return ARCHITECTURE if lacking or OF_ARCHITECTURE.fullmatch(option) else OTHER
    return next((what for pattern, what in BELONGS.items() if re.fullmatch(pattern, key)), OTHER)


def _flat_config(run: Run) -> dict[str, Any]:
    """Return the values of a run's config that a run reads, by key, with the run's folder as WORK_DIR."""
    values = {key: value for key, value in saved_config(run.config).items() if key in READ}
    if not values:
        return {'config': f'{run.config_file or "that"} of {run.folder} cannot be read'}
    with registered_only(), scope_of(Config({'default_scope': values.get('default_scope')})):
        flat = dict(_flat(values, ''))
    for node in pretrained_nodes(values.get('model')):
        flat[f'{_part(node.path)}: loads weights'] = True
    named = {run.folder, str(values.get('work_dir') or run.folder)} - {''}
    folders = sorted({*named, *map(os.path.abspath, named)} - {'.'}, key=len, reverse=True)
    own = re.compile(rf'(?<![\w/.])({"|".join(map(re.escape, folders))})(?=/|$)') if folders else None
    return {key: own.sub('WORK_DIR', value) if own and isinstance(value, str) else value for key, value in flat.items()}


def _flat(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each value in a part of a config with its key; lists without dicts are values."""
    if isinstance(node, Mapping) and node:
        if BACKBONE.fullmatch(f'{key}.') and isinstance(node.get('type'), str):
            node = _with_defaults(node)
        for name, value in node.items():
            yield from _flat(value, f'{key}.{name}' if key else str(name))
    elif isinstance(node, list | tuple) and any(isinstance(value, Mapping) for value in node):
        for number, value in enumerate(node):
            yield from _flat(value, f'{key}.{number}')
    else:
        yield key, tuple(node) if isinstance(node, list) else node


def _with_defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a backbone: those of its config, else the defaults of its constructor."""
    options: dict[str, Any] = {}
    for base in reversed(getattr(MODELS.get(node['type']), '__mro__', ())):
        known = inspect.signature(base.__init__).parameters.values() if base is not object else ()
        options |= {one.name: one.default for one in known if one.default is not one.empty}
    options = {key: value for key, value in options.items() if not OF_ARCHITECTURE.fullmatch(key)} | dict(node)
    options = {key: USUAL.get(key) if value is None else value for key, value in options.items()}
    if isinstance(options.get('norm_cfg'), Mapping):
        options['norm_cfg'] = {'requires_grad': True, **options['norm_cfg']}
    return options


def _part(path: str) -> str:
    return re.sub(r'\.(\w*init_cfg|pretrained)\b.*', '', path)


def starts_of(sides: Sequence[Side]) -> tuple[Start, ...]:
    """Return what the networks of the sides started from, as the config of the first run of each side says."""
    found = []
    for side in sides:
        values = saved_config(side.runs[0].config)
        names = {_part(node.path): node.checkpoint for node in pretrained_nodes(values.get('model'))}
        names |= {'model': values['load_from']} if values.get('load_from') else {}
        found += [Start(side.name, part, *_origin(str(name))) for part, name in names.items()]
        found += [] if names else [Start(side.name, 'model', RANDOM)]
    return tuple(found)


def _origin(name: str) -> tuple[str, str, str, str]:
    """Return name, hash, recipe and licence of a checkpoint; nothing is downloaded."""
    published = PUBLISHED.get(ALIASES.get(name, name))
    if published:
        return name, published.sha256, published.recipe, published.licence
    with suppress(UserError):
        origin = origin_of(name)
        if not isinstance(origin, Path):
            return f'{name} ({Path(origin.urls[0]).name})', origin.digest, '', origin.licence
        if origin.is_file():
            return name, digest_of(origin)[:8], '', ''
    return name, '', '', ''
