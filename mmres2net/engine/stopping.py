"""Runs that end before their schedule does: because a metric stagnates, by a limit of time or by a signal."""

import signal
import time
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmres2net.engine.checkpoints import EVALUATED, CheckpointHook
from mmres2net.engine.console import say
from mmres2net.engine.exact import ExactHook
from mmres2net.errors import Interrupted, TimeIsUp
from mmres2net.registry import HOOKS
from mmres2net.signals import hold_signals, raise_received, received

ASK_EVERY = 10  # steps after which several processes ask each other whether to stop


@HOOKS.register_module()
class EarlyStopHook(Hook):
    """Stop training after ``patience`` evaluations in a row without a better value of the metric of ``save_best``.

    MMEngine's ``EarlyStoppingHook`` forgets its count when a run is resumed and does not know ``save_best='auto'``.
    """

    priority = 'LOWEST'  # behind the CheckpointHook, which finds out what 'auto' is

    def __init__(self, *, patience: int) -> None:
        self.patience = patience

    def before_train(self, runner: Runner) -> None:
        """Stop again what was stopped before, and is resumed."""
        if runner.iter:
            self.after_val_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop if the best value is too long ago; a value that is equal or NaN is not better."""
        saver = next(hook for hook in runner.hooks if isinstance(hook, MMEngineCheckpointHook) and hook.save_best)
        name, sign = saver.key_indicators[0], -1 if saver.rules[0] == 'less' else 1
        if f'val/{name}' not in runner.message_hub.log_scalars:
            return
        values = sign * np.asarray(runner.message_hub.get_scalar(f'val/{name}').data[0], dtype=float)
        waited = len(values) - 1 - int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        if waited >= self.patience:
            runner.train_loop.stop_training = True
            say(f'early stop: {name} was not better in the last {waited} evaluations')


class StopHook(Hook):
    """End a run at a step, with a checkpoint, by a signal or a limit of time; save checkpoints between the others.

    In an evaluation signals end the run at once, and the resumed run begins with it. The run began at ``begin``
    (monotonic seconds) and may take so many ``minutes``. A checkpoint is saved ``every`` so many steps or minutes.
    """

    priority = 'LOWEST'  # behind the hooks that count and save

    def __init__(
        self, exact: ExactHook, *, begin: float, minutes: float | None = None, every: tuple[int, str] | None = None
    ) -> None:
        self.exact, self.begin, self.minutes, self.every = exact, begin, minutes, every
        self._saved, self._save_is_due = time.monotonic(), False
        self.step, self._has_begun = 0, False

    def before_train(self, runner: Runner) -> None:
        """Begin with the evaluation that a stop prevented; checkpoints of other tools do not tell."""
        evaluated = runner.message_hub.runtime_info.get(EVALUATED, runner.iter)
        runner.message_hub.update_info(EVALUATED, evaluated)
        self.step, self._has_begun = runner.iter, True
        hold_signals(True)
        if evaluated != runner.iter and self.exact.evaluation_is_due(runner):
            runner.val_loop.run()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save if it is time to, and raise :class:`Interrupted` if the run has to stop."""
        self.step = step = runner.iter + 1
        number, unit = self.every or (0, '')
        if unit:
            self._save_is_due |= step % number == 0 if unit == 'it' else time.monotonic() - self._saved >= number * 60
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if step % counts:  # gradients are being accumulated
            return
        reason = self._reason() if get_world_size() == 1 or step % (ASK_EVERY * counts) == 0 else None
        if reason or self._save_is_due:
            self._save(runner)
            self._save_is_due, self._saved = False, time.monotonic()
        if reason:
            raise reason

    def before_val_epoch(self, runner: Runner) -> None:
        hold_signals(False)
        raise_received()

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        raise_received()

    def after_val(self, runner: Runner) -> None:
        if (reason := self._reason()) and runner.iter < runner.max_iters:
            self._save(runner)
            raise reason

    def finish(self, runner: Runner) -> None:
        """Save what an interrupted evaluation had before it, and close the logs."""
        if not self._has_begun or received.count(signal.SIGINT) > 1:
            return
        if not hold_signals(True):  # within an evaluation
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # swaps the averaged weights, which it evaluates, with the model's
                    hook.before_val_epoch(runner)
            self._save(runner)
        runner.call_hook('after_run')

    def _save(self, runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook.save_now(runner, self.step)

    def _reason(self) -> Interrupted | None:
        """Return why all processes have to stop."""
        over = self.minutes is not None and time.monotonic() - self.begin >= self.minutes * 60
        asked = torch.tensor([received[0] if received else 0, int(over)])
        if get_world_size() > 1:
            all_reduce(asked, 'max')
        number, over = asked.tolist()
        if number:
            return Interrupted(number)
        return TimeIsUp(self.minutes or 0) if over else None
