"""What the flags do to a config. Each function takes a config and returns a changed copy and a line for each change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.init_cfg import drop_pretrained, pretrained_nodes
from mmres2net.paths import find_config

Change = tuple[Config, list[str]]


def load_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """Return the config file ``name``, a path or the name of a shipped config, with ``options`` merged in.

    Raises:
        UserError: There is no such file, it does not parse, or an option does not fit it.
    """
    try:
        path = find_config(name)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    try:
        cfg = Config.fromfile(path)
        if options:
            cfg.merge_from_dict(options)
    except ImportError as error:
        raise UserError(f'{path} needs a package that cannot be imported: {error}') from error
    except Exception as error:  # a config is a program: whatever it raises is a fault of the file
        raise UserError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    return cfg


def work_dir_of(cfg: Config, name: str, chosen: str | None) -> str:
    """Return the folder of a run: the flag's, else the config's, else ``work_dirs/NAME``."""
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
        'freeze_stem': (bool, None),
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
    """Turn synchronised batch norm into batch norm, which is the same where there is one process and runs anywhere."""
    cfg = copy.deepcopy(cfg)
    lines = []
    for path, node in walk(cfg.get('model') or {}, 'model'):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            lines.append(f'{path}.type {node["type"]} -> BN')
            node['type'] = 'BN'
    return cfg, lines


def with_amp(cfg: Config, cuda: bool) -> Config:
    """Return ``cfg`` with automatic mixed precision.

    Raises:
        UserError: No GPU, or the config already has an optimizer wrapper that mixed precision does not fit.
    """
    if not cuda:
        raise UserError('--amp needs a GPU, and torch sees none; leave it out')
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp does not fit optim_wrapper.type={kind!r}; it turns OptimWrapper into AmpOptimWrapper')
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return cfg


def with_scaled_lr(cfg: Config) -> Config:
    """Return ``cfg`` with the learning rate scaled linearly to the real number of images a step.

    Raises:
        UserError: The config does not say which number its learning rate is for.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config, the images a step that its learning '
            'rate is for; e.g. --cfg-options auto_scale_lr.base_batch_size=16'
        )
    cfg = copy.deepcopy(cfg)
    cfg.auto_scale_lr.enable = True
    return cfg


def batch_notice(cfg: Config, world_size: int) -> str:
    """Return a warning where the images a step are not those that the learning rate is for; else nothing."""
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    accumulated = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if not base or not images or scale.get('enable') or images * world_size * accumulated == base:
        return ''
    return (
        f'the learning rate of this config is for {base} images a step, this run has '
        f'{images * world_size * accumulated}; --auto-scale-lr scales it'
    )
