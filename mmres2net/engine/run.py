"""What training and testing share: prepare a config by the flags, build its runner, check its data, run it."""

import argparse
import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmres2net.data.check.before import check_before_training, explain_failure
from mmres2net.data.shapes import make_shapes
from mmres2net.engine.build import building, unwrapped
from mmres2net.engine.checkpoints import DurableRunner
from mmres2net.engine.config import load_config, load_swapped, single_process_norms, without_idle_workers, work_dir_of
from mmres2net.engine.console import ConsoleHook
from mmres2net.engine.exact import INITIAL, seed_generators
from mmres2net.engine.launcher import is_first_here, is_first_process, join, wait_for_others, world_size
from mmres2net.engine.own_data.flag import read_data
from mmres2net.engine.profiling import ProfileDone, ProfileHook
from mmres2net.engine.resume import clear_work_dir
from mmres2net.engine.settings import check_settings
from mmres2net.engine.speed import SpeedUpHook
from mmres2net.engine.switches import with_batch, with_randomness
from mmres2net.engine.weights import log_left_out, mismatch_as_user_error
from mmres2net.errors import RunError, UserError, reason_of
from mmres2net.signals import raise_received
from mmres2net.text import join_some
from mmres2net.weights.loading import check_finite

# Words of other libraries, and what they mean to the user.
LOST = (
    'the connection to another process broke, or nothing came from it within env_cfg.dist_cfg.timeout: see its own '
    'messages; --resume continues from the newest checkpoint'
)
LOST_WORDS = 'remote process exited|closed by peer|reset by peer|Broken pipe|Timed out waiting|Read timeout'
HINTS = {
    **dict.fromkeys(LOST_WORDS.split('|'), LOST),
    'Expected more than 1 value per channel': 'batch norm cannot train on a batch of one image: set '
    'train_dataloader.batch_size=2 or more, and train_dataloader.drop_last=True if the last batch is smaller',
}


def prepare(args: argparse.Namespace, parts: Sequence[str]) -> tuple[Config, list[str]]:
    """Return the config of a run with the common flags applied, and notes on what that changed.

    What can be known before a model is built is checked here: the settings and, in the first process of each machine,
    the data. Only own data, in standard form, are written. Of the ``parts`` of the data that the run reads, the first
    must be there. A UserError says that the config, a flag or the data have an error.
    """
    cfg, notes = _load(args, training='train' in parts)
    cfg, lines = with_randomness(cfg, args.seed, deterministic=args.deterministic)
    notes += lines
    if isinstance(batch := getattr(args, 'batch', None), int):  # before anything goes by the images per step
        cfg, lines = with_batch(cfg, batch)
        notes += lines
    if not cfg.get(f'{parts[0]}_dataloader') or cfg.get(f'{parts[0]}_cfg') is None:
        raise UserError(f'{args.config} has no {parts[0]}_dataloader or no {parts[0]}_cfg, so there is no data to read')
    if args.profile and cfg.get('compile'):
        raise UserError("--profile cannot look into a compiled step: add 'compile=False' to --cfg-options")
    parts = [part for part in parts if cfg.get(f'{part}_dataloader')]
    check_settings(cfg, parts)
    cfg.launcher = args.launcher
    if world_size(args.launcher) == 1 or not torch.cuda.device_count():
        cfg, lines = single_process_norms(cfg)
        notes += [f'{line}, which has the statistics of one process' for line in lines]
    cfg, lines = without_idle_workers(cfg)
    notes += lines
    first = is_first_here(args.launcher)
    if args.data:
        cfg, lines = read_data(cfg, args, parts)
        notes += lines
    elif cfg.get('embedded_data') and first:
        embed(cfg.embedded_data)
    if first and not args.skip_data_check:
        check_before_training(cfg, parts, processes=world_size(args.launcher))
    return cfg, notes


def _load(args: argparse.Namespace, training: bool) -> tuple[Config, list[str]]:
    if not args.backbone:
        cfg = load_config(args.config, args.cfg_options)
        cfg.work_dir = work_dir_of(cfg, cfg.filename, args.work_dir)
        lines: list[str] = []
    else:
        cfg, lines = load_swapped(args, training=training)
        lines = [f'--backbone {args.backbone}: {line}' for line in lines]
    given = ', '.join(f'{name}={value}' for name, value in (args.cfg_options or {}).items())
    return cfg, [f'--cfg-options: {given}', *lines] if given else lines


def embed(root: str) -> None:
    """Make the embedded data set at ``root`` unless it is there; a UserError if something else is."""
    try:
        make_shapes(root)
    except (OSError, ValueError) as error:
        raise UserError(f'the embedded data set cannot be made: {error}') from error


class GuardHook(Hook):
    """Keeps what a run needs to be reported and resumed; loads the ``checkpoint`` of a test strictly.

    With ``overwrite``, the checkpoints of an earlier run are deleted once the new one is sure to start.
    """

    priority = 'VERY_LOW'

    def __init__(self, *, checkpoint: str | None = None, overwrite: bool = False) -> None:
        self.checkpoint, self.overwrite = checkpoint, overwrite
        self.has_begun = False

    def before_run(self, runner: Runner) -> None:
        """Load the checkpoint to test; a UserError says that it has other parameters than the model."""
        if self.checkpoint is not None:
            with mismatch_as_user_error(self.checkpoint):
                runner.load_checkpoint(self.checkpoint, map_location='cpu', strict=True)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights of a checkpoint, and that a resumed run has their model, which MMEngine only warns of."""
        state, file = checkpoint.get('state_dict', checkpoint), self.checkpoint or runner.cfg.get('load_from')
        if not isinstance(state, Mapping):
            raise UserError(f'{file} holds no weights: state_dict is a {type(state).__name__}')
        try:
            check_finite({name: value for name, value in state.items() if isinstance(value, torch.Tensor)})
        except UserError as error:
            raise UserError(f'{file}: {error}') from error
        own = unwrapped(runner.model).state_dict()
        if self.checkpoint is None and not runner.cfg.get('resume'):
            log_left_out(own, state, str(file))
        if not runner.cfg.get('resume') or 'state_dict' not in checkpoint:  # a sharded one holds it elsewhere
            return
        faults = [name for name in {**own, **state} if name not in own or name not in state]
        faults += [name for name in own if name in state and own[name].shape != state[name].shape]
        if faults:
            raise UserError(f'--resume: the checkpoint is of another model; it differs in {join_some(faults)}')

    def before_train(self, runner: Runner) -> None:
        self.has_begun = True
        if self.overwrite and is_main_process():
            for path in clear_work_dir(Path(runner.work_dir)):
                print_log(f'deleted: {path}', 'current')

    def before_val_epoch(self, runner: Runner) -> None:
        """Evaluate the model of the first process, whose checkpoints are saved: batch norm's statistics may differ."""
        for buffer in runner.model.buffers():
            broadcast(buffer)

    before_test = before_train

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        raise_received()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note the number of processes, which the learning rate goes by."""
        checkpoint['meta']['world_size'] = get_world_size()


def build_runner(cfg: Config, *, plain: bool = False, profile: int | None = None, style: str | None = None) -> Runner:
    """Return MMEngine's runner of ``cfg``, which stays as it is. A UserError names what cannot be built.

    ``plain`` leaves out what makes a run faster on the CPU; ``profile`` measures so many steps, saves nothing, and
    ends; ``style`` is that of the console.
    """
    cfg = copy.deepcopy(cfg)
    join(cfg)
    if profile:
        cfg.default_hooks = {**(cfg.get('default_hooks') or {}), 'checkpoint': None}
        cfg.default_hooks.pop('results', None)
    with building('this config'):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else DurableRunner.from_cfg(cfg)
    if not any(isinstance(hook, ConsoleHook) for hook in runner.hooks):
        runner.register_hook(ConsoleHook(style=style))
    if not plain:
        runner.register_hook(SpeedUpHook())
    if profile:
        runner.register_hook(ProfileHook(steps=profile))
    return runner


def check_built(runner: Runner, parts: Sequence[str], args: argparse.Namespace) -> None:
    """Build the data sets of a runner and check what only they can tell: that a first sample can be read.

    A UserError says that a data set cannot be built, and why as far as the data check knows; or it is not fit for this
    run.
    """
    parts = [part for part in parts if runner.cfg.get(f'{part}_dataloader')]
    try:
        with building('a data set of this config'):
            loaders = [getattr(runner, f'{part}_loop').dataloader for part in parts]
    except UserError as error:
        found = explain_failure(runner.cfg, parts) if is_first_process(args.launcher) else ''
        raise UserError(f'{error}\n{found}'.rstrip()) from error
    for part, loader in zip(parts, loaders, strict=True):
        count = len(loader.dataset)
        if not count:
            raise UserError(f'the {part} data set is empty: {part}_dataloader.dataset leaves no sample')
        if not len(loader) and not isinstance(getattr(loader.batch_sampler, 'sampler', None), InfiniteSampler):
            few = f'the {part} data set has {count:,} samples, fewer than a batch in each process'
            raise UserError(f'{few}, and {part}_dataloader.drop_last=True leaves no step; choose a smaller batch_size')
        try:
            loader.dataset[0]
        except Exception as error:  # a pipeline is a program
            raise UserError(f'the first sample of the {part} data cannot be read: {reason_of(error)}') from error
    wait_for_others()
    seed_generators(INITIAL, runner.seed)  # so that initial weights depend on nothing else


def run(runner: Runner, action: Callable[[], Any], guard: GuardHook) -> Any:
    """Return what ``action`` of the runner returns.

    What ends it is a UserError or, once it has begun, a RunError with a traceback in the work dir; ProfileDone passes.
    """
    runner.register_hook(guard)
    try:
        return action()
    except (UserError, ProfileDone):
        raise
    except Exception as error:
        reason = next((hint for words, hint in HINTS.items() if words in str(error)), reason_of(error))
        if not guard.has_begun:
            raise UserError(f'this run cannot start: {reason}') from error
        file = Path(runner.work_dir) / 'traceback.txt'
        with suppress(OSError):
            file.write_text(traceback.format_exc())
        raise RunError(f'the run ended at step {runner.iter + 1}: {reason}\nthe traceback: {file}') from error
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ConsoleHook):
                hook.close()
