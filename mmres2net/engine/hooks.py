"""Hooks of our own: pictures of a run, and checkpoints that must fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmres2net.engine.profiling import ProfileHook
from mmres2net.engine.speed import SpeedUpHook
from mmres2net.errors import UserError
from mmres2net.registry import HOOKS

__all__ = ['FOLDER', 'FittingCheckpointHook', 'PicturesHook', 'ProfileHook', 'SpeedUpHook']

FOLDER = 'pictures'


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draw annotations beside predictions for the first images of each evaluation, into ``WORK_DIR/pictures``.

    The files keep their names, so the folder always shows the latest state and never grows.

    Args:
        count: Number of images.
        score_thr: Predictions under this score are left out; None for hosts whose predictions have no score.
    """

    priority = 'LOW'

    def __init__(self, *, count: int = 8, score_thr: float | None = 0.3) -> None:
        self.count, self.score_thr = count, score_thr
        self._drawn = 0

    def before_val(self, runner: Runner) -> None:
        self._drawn = 0

    def before_test(self, runner: Runner) -> None:
        self._drawn = 0

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw(runner, outputs or ())

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw(runner, outputs or ())

    def _draw(self, runner: Runner, samples: Any) -> None:
        if not is_main_process():
            return
        for sample in samples[: self.count - self._drawn]:
            path = Path(sample.img_path)
            runner.visualizer.add_datasample(
                path.stem,
                mmcv.imread(str(path), channel_order='rgb'),
                data_sample=sample,
                show=False,
                out_file=str(Path(runner.work_dir) / FOLDER / f'{path.stem}.png'),
                **({} if self.score_thr is None else {'pred_score_thr': self.score_thr}),
            )
            self._drawn += 1


@HOOKS.register_module()
class FittingCheckpointHook(Hook):
    """Refuse a checkpoint that leaves a parameter of the model random; MMEngine only warns of it."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes before they are loaded.

        Raises:
            UserError: The checkpoint lacks some, or has them in another shape.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        given = checkpoint.get('state_dict', checkpoint)
        faults = [fault for name, value in model.state_dict().items() if (fault := _fault(name, value, given))]
        if faults:
            more = [f'and {len(faults) - 5} more'] if len(faults) > 5 else []
            listed = '\n  '.join([*faults[:5], *more])
            raise UserError(
                f'the checkpoint {runner._load_from} does not fit the config:\n  {listed}\n'
                'test it with the config it was trained with; its work folder holds a copy'
            )


def _fault(name: str, value: torch.Tensor, given: dict[str, torch.Tensor]) -> str:
    if name not in given:
        return f'{name}: not in the checkpoint'
    if given[name].shape != value.shape:
        return f'{name}: {tuple(given[name].shape)} in the checkpoint, {tuple(value.shape)} in the model'
    return ''
