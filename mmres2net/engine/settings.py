"""Settings of a run that would fail late, or that would train nothing without a word, are refused before it starts."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import LOOPS, OPTIMIZERS

from mmres2net.engine.build import class_of
from mmres2net.errors import UserError
from mmres2net.text import join_some


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Allowed(NamedTuple):
    """What a setting may be, in words and as a test."""

    words: str
    test: Callable[[Any], bool]


POSITIVE = Allowed('a whole number, 1 or more', lambda value: _is_whole(value) and value >= 1)
COUNT = Allowed('a whole number, 0 or more', lambda value: _is_whole(value) and value >= 0)
INTERVAL = Allowed('a whole number, 1 or more, or -1 for never or all', lambda v: POSITIVE.test(v) or v == -1)
RATE = Allowed('a number greater than 0', lambda value: _is_number(value) and value > 0)
DECAY = Allowed('a number, 0 or more', lambda value: _is_number(value) and value >= 0)
SEED = Allowed('a whole number, 0 to 4294967295', lambda value: _is_whole(value) and 0 <= value < 2**32)

TRAIN = {
    **{f'train_cfg.{name}': POSITIVE for name in ('max_epochs', 'max_iters', 'val_interval')},
    **{f'default_hooks.checkpoint.{name}': INTERVAL for name in ('interval', 'max_keep_ckpts')},
    **{f'optim_wrapper.optimizer.{name}': DECAY for name in ('weight_decay', 'momentum')},
    **dict.fromkeys(('train_cfg.val_begin', 'default_hooks.checkpoint.save_begin'), COUNT),
    **dict.fromkeys(('optim_wrapper.optimizer.lr', 'optim_wrapper.clip_grad.max_norm'), RATE),
    **dict.fromkeys(('default_hooks.finite_loss.patience', 'auto_scale_lr.base_batch_size'), POSITIVE),
    'optim_wrapper.accumulative_counts': POSITIVE,
}
ANY = {'default_hooks.logger.interval': POSITIVE, 'randomness.seed': SEED, 'env_cfg.dist_cfg.timeout': RATE}
BUILT = ('runner', 'dataloader', 'evaluator')  # what MMEngine gives to a loop
EXAMPLE = 'dict(type="SGD", lr=0.01)'
LOADER = {'batch_size': POSITIVE, 'num_workers': COUNT, 'prefetch_factor': POSITIVE}


def check_settings(cfg: Config, parts: Sequence[str]) -> None:
    """Check numbers, ranges and what ``parts`` of the data need; a UserError names a setting with its value."""
    for part in parts:
        for needed in ('dataloader', 'evaluator', 'cfg'):
            node = cfg.get(f'{part}_{needed}')
            if node is None and (part, needed) != ('train', 'evaluator'):
                raise UserError(f'{part}_{needed} is missing in the config, which has {part}_dataloader')
            if needed != 'evaluator' and not isinstance(node, Mapping):
                raise UserError(f'{part}_{needed}={node!r}: this has to be a dict')
    if 'train' in parts:
        _check_optimizer(cfg)
        epochs, steps = (value_at(cfg, f'train_cfg.{name}') for name in ('max_epochs', 'max_iters'))
        if epochs is not None and steps is not None:
            raise UserError(f'train_cfg.max_epochs={epochs!r} and train_cfg.max_iters={steps!r}: a run has one of them')
    for part in parts:
        _check_loop(cfg, part)
    rules = ANY | (TRAIN if 'train' in parts else {})
    rules |= {f'{part}_dataloader.{name}': allowed for part in parts for name, allowed in LOADER.items()}
    for path, allowed in rules.items():
        value = value_at(cfg, path)
        if value is not None and not allowed.test(value):
            raise UserError(f'{path}={value!r}: choose {allowed.words}, e.g. with --cfg-options {path}=VALUE')


def value_at(cfg: Any, path: str) -> Any:
    """Return what a config has at a path such as ``train_cfg.max_epochs``; None where it has nothing there."""
    for key in path.split('.'):
        cfg = cfg.get(key) if isinstance(cfg, Config | Mapping) else None
    return cfg


def _check_loop(cfg: Config, part: str) -> None:
    """Check that the loop of a part takes the options in its config, and has all that it needs."""
    options = dict(cfg[f'{part}_cfg'])
    by = ('Epoch' if options.pop('by_epoch', False) else 'Iter') + 'Based' if part == 'train' else ''
    name = options.pop('type', f'{by}{part.title()}Loop')
    loop = class_of(cfg, LOOPS, name)
    if loop is None:
        raise UserError(f'{part}_cfg.type={name!r}: no such loop')
    known = inspect.signature(loop)
    try:
        known.bind(**{key: None for key in known.parameters if key in BUILT}, **options)
    except TypeError as error:
        raise UserError(f'{part}_cfg: {error}; {name} has {join_some(known.parameters)}') from error


def _check_optimizer(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping):
        raise UserError(f'optim_wrapper is missing in the config: give one, such as dict(optimizer={EXAMPLE})')
    if 'constructor' in wrapper and 'optimizer' not in wrapper:
        return  # several optimizers, which their constructor knows
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, Mapping) or 'type' not in optimizer:
        raise UserError(f'optim_wrapper.optimizer={optimizer!r}: give its type and its options, such as {EXAMPLE}')
    name = optimizer['type']
    if class_of(cfg, OPTIMIZERS, name) is None:  # MMEngine would call None
        close = join_some(difflib.get_close_matches(name, OPTIMIZERS.module_dict, cutoff=0.4)) or 'none'
        raise UserError(f'optim_wrapper.optimizer.type={name!r}: no such optimizer; close matches: {close}')
