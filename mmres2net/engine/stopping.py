"""Runs that end before their schedule does: because a metric stagnates, or by a limit of time, with a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmres2net.engine.console import say
from mmres2net.engine.resume import POINTER
from mmres2net.errors import TimeIsUp
from mmres2net.registry import HOOKS

ASK_EVERY = 10  # steps after which several processes ask each other for the time
STEPS = 'steps_of_epoch'  # in the meta data of a checkpoint within an epoch: steps done, steps of the epoch


@HOOKS.register_module()
class EarlyStopHook(Hook):
    """Stop training after ``patience`` evaluations in a row without a better value of the metric of ``save_best``.

    MMEngine's ``EarlyStoppingHook`` forgets its count when a run is resumed and does not know ``save_best='auto'``.
    This one reads the values of all evaluations in the message hub, which checkpoints hold.
    """

    priority = 'LOWEST'  # behind the CheckpointHook, which finds out what 'auto' is

    def __init__(self, *, patience: int) -> None:
        self.patience = patience

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop if the best value is too long ago; a value that is equal or NaN is not better."""
        saver = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best)
        name, sign = saver.key_indicators[0], -1 if saver.rules[0] == 'less' else 1
        values = sign * np.asarray(runner.message_hub.get_scalar(f'val/{name}').data[0], dtype=float)
        waited = len(values) - 1 - int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        if waited >= self.patience:
            runner.train_loop.stop_training = True
            say(f'early stop: {name} was not better in the last {waited} evaluations')


class TimeLimitHook(Hook):
    """Save a checkpoint and end the run at the next step after so many ``minutes`` since ``begin`` (monotonic seconds).

    The last step, and a step that an evaluation follows, do not end it.
    """

    priority = 'LOWEST'  # behind the hooks that count steps

    def __init__(self, minutes: float, begin: float) -> None:
        self.minutes, self.begin = minutes, begin

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save and stop if it is time to.

        Raises:
            TimeIsUp: The run was stopped.
        """
        if not self._is_over(runner):
            return
        loop, step, meta = runner.train_loop, runner.iter + 1, {}
        if isinstance(loop, EpochBasedTrainLoop):
            before = getattr(loop.dataloader, 'before', 0)
            meta[STEPS] = [before + batch_idx + 1, before + len(loop.dataloader)]
            if meta[STEPS][0] == meta[STEPS][1]:
                return
        elif step == runner.max_iters or (runner.val_loop is not None and step % loop.val_interval == 0):
            return
        folder, name = Path(runner.work_dir), f'iter_{step}.pth'
        runner.save_checkpoint(str(folder), name, meta=meta, by_epoch=False)
        if is_main_process():
            (folder / POINTER).write_text(str(folder / name))
            # Where the other checkpoints are named by epochs, one named by steps is of an earlier stop.
            by_epoch = all(hook.by_epoch for hook in runner.hooks if isinstance(hook, CheckpointHook))
            for path in folder.glob('iter_*.pth') if meta and by_epoch else ():
                if path.name != name:
                    path.unlink()
        runner.call_hook('after_run')  # closes the logs
        raise TimeIsUp(self.minutes)

    def _is_over(self, runner: Runner) -> bool:
        over = torch.tensor(float(time.monotonic() - self.begin >= self.minutes * 60))
        if get_world_size() > 1:
            if not self.every_n_train_iters(runner, ASK_EVERY):
                return False
            all_reduce(over, 'max')  # all of them have to stop together
        return bool(over)


class RestOfEpochHook(Hook):
    """Begin with the rest of an epoch of which ``done`` of ``length`` steps are done, or with the same share of it."""

    def __init__(self, done: int, length: int) -> None:
        self.done, self.length = done, length

    def before_train_epoch(self, runner: Runner) -> None:
        loader = runner.train_loop.dataloader
        if self.done:
            before = min(round(len(loader) * self.done / self.length), len(loader) - 1)
            runner.train_loop.dataloader, self.done = _Rest(loader, before), 0

    def after_train_epoch(self, runner: Runner) -> None:
        runner.train_loop.dataloader = getattr(runner.train_loop.dataloader, 'loader', runner.train_loop.dataloader)


class _Rest:
    """A data loader that leaves out as many batches as were trained ``before``."""

    def __init__(self, loader: Any, before: int) -> None:
        self.loader, self.before = loader, before

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, len(self))

    def __len__(self) -> int:
        return len(self.loader) - self.before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def rest_of_epoch(content: Mapping[str, Any]) -> RestOfEpochHook | None:
    """Return the hook that a run needs that is resumed from this checkpoint; None where no epoch had begun."""
    match content['meta'].get(STEPS):
        case [int(done), int(length)] if 0 < done < length:
            return RestOfEpochHook(done, length)
    return None
