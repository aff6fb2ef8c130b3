"""The schedule of a recipe for a data set of another size: steps, learning rate, warm-up, evaluations."""

import math
import re
from collections.abc import Callable, Collection
from typing import Any

from mmengine.config import Config

from mmres2net.swap.sources import type_name

LEAST = 1_000  # steps: fewer do not train a new head, however often they show the images
PASSES = 50  # over the data where a recipe counts steps; the shipped ones have 24 to 48
EVALUATIONS = 20  # at most
WARM_UP = 10  # the warm-up takes at most one of so many parts
BASES = {'mmdet': 16, 'mmseg': 16, 'mmpretrain': 256}  # images per step, where neither setting nor name says it
PLACES, LENGTHS = ('begin', 'end', 'milestones'), ('T_max', 'step_size', 'total_steps')


def fit_schedule(
    cfg: Config, recipe: Config, images: int, *, processes: int = 1, repeated: int = 1, given: Collection[str] = ()
) -> list[str]:
    """Fit the schedule of ``cfg`` to the number of training images, in place; return lines with the arithmetic.

    The rules are in docs/own-data.md. Settings in ``given`` stay; ``recipe`` is the config without them, whose epochs
    showed its data set ``repeated`` times.
    """
    train, loader = cfg.get('train_cfg') or {}, cfg.get('train_dataloader') or {}
    unit = 'max_epochs' if train.get('max_iters') is None else 'max_iters'
    if not loader or train.get(unit) is None:
        return []
    lines = _fit_batch(loader, images, processes, given)
    batch, by_epoch = loader.get('batch_size', 1) * processes, unit == 'max_epochs'
    old = recipe.train_cfg.get(unit, train[unit])
    lines += _fit_rate(cfg, batch, given)
    an_epoch = max(images // batch if loader.get('drop_last') else math.ceil(images / batch), 1)
    new = max(old * repeated, math.ceil(LEAST / an_epoch)) if by_epoch else min(max(PASSES * an_epoch, LEAST), old)
    new = train[unit] if f'train_cfg.{unit}' in given else new
    train[unit], steps = new, new * an_epoch if by_epoch else new
    if 'train_cfg.val_interval' not in given:
        train['val_interval'] = max(math.ceil(new / EVALUATIONS), 1)
    train.pop('dynamic_intervals', None)
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if hook and 'default_hooks.checkpoint.interval' not in given:
        hook.update(interval=train['val_interval'], by_epoch=by_epoch)
    lines.append(
        f'train_cfg.{unit} {old} -> {new}: {images:,} images / {batch} per step = {an_epoch:,} steps an epoch, '
        f'{steps:,} steps in all; evaluated every {train["val_interval"]:,}'
    )
    for one in cfg.get('custom_hooks') or ():  # of mmdet, which change the augmentation
        places = {'switch_epoch', 'num_last_epochs'} & set(one)
        one.update({key: max(round(one[key] * new / old), 1) for key in places})
    if not any(key.startswith('param_scheduler') for key in given):
        lines += _fit_schedulers(cfg, old, new, an_epoch, by_epoch)
    return lines


def _fit_batch(loader: dict[str, Any], images: int, processes: int, given: Collection[str]) -> list[str]:
    """Keep a step within the data set, and the last step of an epoch above the one image that batch norm refuses."""
    lines, batch, share = [], loader.get('batch_size', 1), max(images // processes, 1)
    if batch > share and 'train_dataloader.batch_size' not in given:
        lines.append(f'train_dataloader.batch_size {batch} -> {share}: there are {images} images')
        batch = loader['batch_size'] = share
    single = share > batch > 1 and math.ceil(images / processes) % batch == 1
    endless = 'Infinite' in type_name((loader.get('sampler') or {}).get('type'))
    if single and not endless and not loader.get('batch_sampler') and not loader.get('drop_last'):
        loader['drop_last'] = True
        lines.append('train_dataloader.drop_last -> True: the last step of an epoch would have one image')
    return lines


def _fit_rate(cfg: Config, batch: int, given: Collection[str]) -> list[str]:
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer, images, base = wrapper.get('optimizer') or {}, batch * wrapper.get('accumulative_counts', 1), _base(cfg)
    # The rate is for this number from here on, so that --auto-scale-lr does not scale it twice.
    cfg.auto_scale_lr = {'enable': False, 'base_batch_size': images}
    rate = optimizer.get('lr')
    if rate is None or images == base or 'optim_wrapper.optimizer.lr' in given:
        return []
    optimizer['lr'] = float(f'{rate * images / base:.4g}')
    for scheduler in _schedulers(cfg):
        if scheduler.get('eta_min'):
            scheduler['eta_min'] = float(f'{scheduler["eta_min"] * images / base:.4g}')
    return [f'optim_wrapper.optimizer.lr {rate:g} x {images} / {base} = {optimizer["lr"]:g}: {images} images per step']


def _base(cfg: Config) -> int:
    """Return the images per step that a learning rate is for: by its setting, by the name (8xb2), or as is usual."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    named = re.search(r'(\d+)xb(\d+)', str(cfg.filename or ''))
    return base or (int(named[1]) * int(named[2]) if named else BASES.get(cfg.get('default_scope') or '', 16))


def _schedulers(cfg: Config) -> list[dict[str, Any]]:
    found = cfg.get('param_scheduler') or []
    return list(found) if isinstance(found, list | tuple) else [found]


def _fit_schedulers(cfg: Config, old: int, new: int, an_epoch: int, by_epoch: bool) -> list[str]:
    """Move the bounds of all schedulers from a run of length ``old`` to one of length ``new``."""
    schedulers, texts = _schedulers(cfg), []
    same = [one for one in schedulers if one.get('by_epoch', True) == by_epoch]
    # What begins a run and ends in its first quarter is the warm-up.
    warm_up = next((end for one in same if not one.get('begin') and (end := one.get('end', old)) <= old / 4), 0)
    kept = min(round(warm_up * new / old) if by_epoch else warm_up, new // WARM_UP)

    def move(place: float) -> int:
        """Return the place in the new run; start, end of the warm-up and end of the run keep theirs."""
        if place <= warm_up:
            return round(place * kept / warm_up) if warm_up else 0
        return round(kept + (place - warm_up) * (new - kept) / (old - warm_up))

    for one in schedulers:
        before = dict(one)
        if one in same:
            _move_bounds(one, move)
        elif by_epoch:  # steps in a run that counts epochs: a warm-up
            one.update({key: min(one[key], new * an_epoch // WARM_UP) for key in ('begin', 'end') if key in one})
        begin, per = one.get('begin', 0), an_epoch if one.get('convert_to_iter_based') else 1
        if type_name(one['type']).startswith(('Linear', 'Constant')) and (one.get('end', math.inf) - begin) * per <= 1:
            one['end'] = begin  # MMEngine never takes back a factor that ends with its first step
        moved = [key for key in (*PLACES, *LENGTHS, 'periods') if one.get(key) != before.get(key)]
        changes = [f'{key} {before[key]} -> {one[key]}' for key in moved]
        texts += [f'{type_name(one["type"])} {", ".join(changes)}'] if changes else []
    if schedulers:
        cfg.param_scheduler = [one for one in schedulers if one.get('end', math.inf) > one.get('begin', 0)]
    return [f'param_scheduler: {"; ".join(texts)}'] if texts else []


def _move_bounds(scheduler: dict[str, Any], move: Callable[[float], int]) -> None:
    begin, periods = scheduler.get('begin', 0), list(scheduler.get('periods') or ())
    ends = [move(sum(periods[:i])) for i in range(len(periods) + 1)]
    scheduler.update({'periods': [max(ends[i + 1] - ends[i], 1) for i in range(len(periods))]} if periods else {})
    for key in (*PLACES, *LENGTHS):
        value = scheduler.get(key)
        if isinstance(value, list | tuple):
            scheduler[key] = [max(move(place), 1) for place in value]  # 0 would lower the rate of the first step
        elif isinstance(value, int | float) and math.isfinite(value):
            scheduler[key] = max(move(begin + value) - move(begin), 1) if key in LENGTHS else move(value)
