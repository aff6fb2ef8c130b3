"""Hooks that MMEngine looks up by name in this module: those of other modules are imported for it."""

import logging
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmres2net.engine.checkpoints import CheckpointHook
from mmres2net.engine.console import ConsoleHook
from mmres2net.engine.profiling import ProfileHook
from mmres2net.engine.results import ResultsHook
from mmres2net.engine.speed import SpeedUpHook
from mmres2net.engine.stopping import EarlyStopHook
from mmres2net.errors import RunError
from mmres2net.registry import HOOKS

__all__ = [
    'CheckpointHook', 'ConsoleHook', 'EarlyStopHook', 'FiniteLossHook', 'ProfileHook', 'ResultsHook', 'SpeedUpHook',
]  # fmt: skip

READ_EVERY = 10  # steps on a GPU


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop training if the loss is NaN or infinite: such steps teach nothing, and weights of NaN never recover.

    A run stops at once if a weight is not finite, else after ``patience`` such steps in a row, or if no step of an
    epoch had a finite loss. It stops before the next checkpoint and evaluation, so no checkpoint of NaN is saved or is
    the best one. On GPUs the loss is read every 10 steps, which keeps the steps asynchronous.
    """

    priority = 'ABOVE_NORMAL'  # before the hooks that save and evaluate

    def __init__(self, *, patience: int = 10) -> None:
        self.patience = patience
        self._steps = 0
        self._bad: torch.Tensor | None = None  # steps in a row without a finite loss, up to now

    def before_train(self, runner: Runner) -> None:
        self._steps, self._bad = 0, None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the step; a RunError says since when the loss is not finite."""
        losses = [value for key, value in (outputs or {}).items() if 'loss' in key and isinstance(value, torch.Tensor)]
        if not losses:
            return
        finite = torch.stack([loss.detach().isfinite().all() for loss in losses]).all()
        bad = torch.zeros((), device=finite.device) if self._bad is None else self._bad
        self._bad, self._steps = torch.where(finite, 0, bad + 1), self._steps + 1
        if finite.device.type == 'cpu' or self.every_n_train_iters(runner, READ_EVERY):
            self._check(runner, runner.iter + 1, self.patience)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner, runner.iter, min(self.patience, self._steps))

    before_val_epoch = after_train_epoch

    def _check(self, runner: Runner, step: int, limit: int) -> None:
        if self._bad is None:
            return
        most = self._bad.clone()
        all_reduce(most, 'max')  # each process has its own images; all have to stop together
        if not (count := int(most)):
            return
        state = runner.model.state_dict()
        broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if not broken and count < limit:
            print_log(f'step {step}: the loss is NaN or infinite', 'current', logging.WARNING)
            return
        weights = f'; {len(broken)} weights are NaN or infinite, such as {broken[0]}' if broken else ''
        raise RunError(
            f'training stopped at step {step}: the loss is NaN or infinite since step {step - count + 1}{weights}. '
            'Check the data (mmres2net check-data), use a lower learning rate, or clip the gradients '
            '(optim_wrapper.clip_grad); default_hooks.finite_loss.patience sets how many such steps are allowed'
        )
