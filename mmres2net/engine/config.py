"""How config files are read, and what the flags do to a config: a changed copy and a line for each change.

MMEngine's reader has two changes for the whole process once this is imported: YAML is data, and calls nothing, and
``_base_ = 'mmres2net::NAME'`` inherits a shipped config.
"""

import argparse
import copy
import difflib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import YamlHandler
from mmengine.runner import Runner

from mmres2net.data.layout import PARTS, walk
from mmres2net.errors import UserError, reason_of
from mmres2net.files import writable_file
from mmres2net.init_cfg import drop_pretrained, pretrained_nodes
from mmres2net.models.arch import ALIASES
from mmres2net.paths import OWN, find_config
from mmres2net.swap import explain_swap
from mmres2net.swap.sources import is_old_option
from mmres2net.text import join_some

# Settings of a run that are no argument of MMEngine's runner.
READ_ELSEWHERE = (
    'activation_checkpointing', 'compile', 'cudnn_benchmark', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline',
)  # fmt: skip
RUN = '_as_run.py'  # the end of the name of a config that --backbone changed
Change = tuple[Config, list[str]]
_mmengines_path = Config._get_cfg_path


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError('it has aliases (*NAME), by which a short file can stand for a billion values')
        return super().compose_node(parent, index)


@register_handler(['yaml', 'yml'])
class SafeYamlHandler(YamlHandler):
    """Reads YAML of plain values without aliases."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Return the content of a file; an error for a tag that is no plain value, and for aliases."""
        return yaml.load(file, Loader=_PlainLoader)


def _base_path(base: str, filename: str) -> tuple[str, str | None]:
    return (str(find_config(base)), None) if base.startswith(OWN) else _mmengines_path(base, filename)


Config._get_cfg_path = staticmethod(_base_path)


def load_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """Return a config file, or the shipped one ``name``, with ``options``; a UserError if it is wrong or missing."""
    try:
        path = find_config(name)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    try:
        cfg = Config.fromfile(path)
        _check_names(cfg, options or {})
        cfg.merge_from_dict(options or {})
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f'{path} cannot be read as a config: it is nested too deeply, or inherits itself') from error
    except Exception as error:  # a config is a program: whatever it raises is an error in the file
        raise UserError(f'{path} cannot be read as a config: {reason_of(error)}') from error
    return cfg


def _check_names(cfg: Config, options: Iterable[str]) -> None:
    """Raise a UserError for an option that no part of a run reads: it would change nothing without a word."""
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *READ_ELSEWHERE}
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            close = difflib.get_close_matches(name, known, cutoff=0.5)
            hint = f'; close matches: {join_some(close)}' if close else ''
            raise UserError(f'--cfg-options {option}: no setting of a run has the name {name!r}{hint}')


def work_dir_of(cfg: Config, name: str, chosen: str | None) -> str:
    """Return the work dir of a run: the flag's, else the config's, else ``work_dirs/NAME``."""
    return chosen or cfg.get('work_dir') or str(Path('work_dirs') / Path(name).stem)


def without_published_weights(cfg: Config) -> Config:
    """Return ``cfg`` without the weights its model starts from: for a run whose checkpoint replaces them anyway."""
    cfg = copy.deepcopy(cfg)
    drop_pretrained(cfg.get('model'))
    return cfg


def without_weights(cfg: Config) -> Change:
    """Train from random weights: drop what loads weights and unfreeze everything, since frozen noise cannot learn."""
    cfg = copy.deepcopy(cfg)
    lines = [f'load_from {cfg.load_from} -> None'] if cfg.get('load_from') else []
    lines += [f'{node.path} {node.checkpoint} -> None' for node in pretrained_nodes(cfg.get('model'))]
    cfg.load_from = None
    drop_pretrained(cfg.get('model'))
    unfrozen: dict[str, tuple[Callable[[Any], bool], Any]] = {
        'frozen_stages': (lambda value: value != -1, -1),
        'norm_eval': (bool, False),
        'requires_grad': (lambda value: value is False, True),
    }
    for path, node in walk(cfg.get('model') or {}, 'model'):
        for key, (applies, value) in unfrozen.items():
            if key in node and applies(node[key]):
                lines.append(f'{path}.{key} {node[key]} -> {value}')
                node[key] = value
    return cfg, lines


def single_process_norms(cfg: Config) -> Change:
    """Turn synchronized batch norm into batch norm: the same in one process, and several of them run without GPUs."""
    cfg = copy.deepcopy(cfg)
    lines = []
    for path, node in walk(cfg.get('model') or {}, 'model'):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            lines.append(f'{path}.type {node["type"]} -> BN')
            node['type'] = 'BN'
    return cfg, lines


def without_idle_workers(cfg: Config) -> Change:
    """Drop the options of data workers where ``num_workers=0``: PyTorch refuses them without workers."""
    cfg = copy.deepcopy(cfg)
    lines = []
    for name in (f'{part}_dataloader' for part in PARTS):
        loader = cfg.get(name) or {}
        for option in ('persistent_workers', 'prefetch_factor') if loader.get('num_workers') == 0 else ():
            lines += [f'{name}.{option} is dropped, since num_workers=0'] if loader.pop(option, None) else []
    return cfg, lines


def with_hook(cfg: Config, name: str, kind: str, **options: Any) -> Config:
    """Return ``cfg`` with a default hook of the type ``kind``, unless it has ``default_hooks.NAME=None``."""
    cfg = copy.deepcopy(cfg)
    hooks = dict(cfg.get('default_hooks') or {})
    if hooks.get(name, {}) is None and not options:
        del hooks[name]
    else:
        hooks[name] = {'type': kind, **(hooks.get(name) or {}), **options}
    cfg.default_hooks = hooks
    return cfg


def with_scaled_lr(cfg: Config) -> Config:
    """Scale the learning rate linearly with the images per step; a UserError if the config does not tell its base."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        option = '--cfg-options auto_scale_lr.base_batch_size=16'
        raise UserError(f'--auto-scale-lr needs the images per step that the learning rate is for, e.g. {option}')
    cfg = copy.deepcopy(cfg)
    # MMEngine divides the images of one forward pass of all processes by this number.
    counts = _accumulated(cfg)
    cfg.auto_scale_lr = {'enable': True, 'base_batch_size': base / counts if base % counts else base // counts}
    return cfg


def batch_notes(cfg: Config, world_size: int, *, scaled: bool) -> list[str]:
    """Return a note if the images per step are not those that the learning rate is for; it may be ``scaled``."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    images = (batch or 0) * world_size * _accumulated(cfg)
    if not base or not images or images == base:
        return []
    way = 'it is scaled linearly' if scaled else '--auto-scale-lr scales it'
    return [f'the learning rate is for {base} images per step, this run has {images}; {way}']


def _accumulated(cfg: Config) -> int:
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def merge(cfg: Config, options: dict[str, Any]) -> None:
    """Set options of the user in a config, which flags may have changed; a UserError if they do not fit."""
    _check_names(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f'--cfg-options does not fit the config, which other flags may change: {error}') from error


def load_swapped(args: argparse.Namespace, *, training: bool) -> Change:
    """Return the config of a run with its backbone swapped and its work dir set, and a line for each change.

    The work dir is that of the config with ``-ARCH`` appended, unless ``--work-dir`` names another: no run of the
    config itself is overwritten, and testing finds what ``training`` wrote.
    """
    options: dict[str, Any] = args.cfg_options or {}
    # Options of the old backbone are set before the swap, which carries them over; those of the new one after it.
    inside = {key: key.split('.backbone.', 1)[1] for key in options if '.backbone.' in key}
    old = {key for key, option in inside.items() if is_old_option(option.split('.')[0])}
    cfg = load_config(args.config, {key: value for key, value in options.items() if key in old or key not in inside})
    scratch = training and args.from_scratch
    swapped, lines = explain_swap(cfg, args.backbone, pretrained=training and not scratch)
    merge(swapped, {key: value for key, value in options.items() if key not in old})
    if scratch:  # here, so that the written file does not freeze random weights when it is run by itself
        swapped, more = without_weights(swapped)
        lines += [f'{line} (from scratch)' for line in more]
    arch = ALIASES.get(args.backbone, args.backbone)
    swapped.work_dir = args.work_dir or f'{work_dir_of(cfg, cfg.filename, None)}-{arch}'
    # MMEngine writes the config of a run, with all flags, to a file of this name: another one than write_config's.
    name = f'{Path(cfg.filename).stem}-{arch}{RUN}'
    return Config(swapped.to_dict(), cfg_text=swapped.text, filename=name), lines


def write_config(cfg: Config) -> Path:
    """Write a config that flags have changed (its name ends in :data:`RUN`) into its work dir; return the file."""
    path = writable_file(Path(cfg.work_dir) / (cfg.filename.removesuffix(RUN) + '.py'), '--work-dir')
    cfg.dump(path)
    return path


def configs_in(folder: Path) -> list[Path]:
    """Return the configs of the runs in a work dir; MMEngine's copy of one that flags have changed is none."""
    found = sorted(folder.glob('*.py'))
    return [path for path in found if path.with_name(path.name.removesuffix(RUN) + '.py') not in found]
