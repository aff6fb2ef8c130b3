"""What training and testing share: flags, processes, the order in which a run is checked and started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmres2net.data.check import check_before_training, check_images
from mmres2net.data.layout import point_at
from mmres2net.data.shapes import make_shapes
from mmres2net.engine.backbone import load_swapped, write_swapped
from mmres2net.engine.config import load_config, single_process_norms, work_dir_of
from mmres2net.engine.hooks import FOLDER, PicturesHook
from mmres2net.engine.profiling import STEPS, ProfileHook
from mmres2net.engine.speed import SpeedUpHook
from mmres2net.errors import UserError
from mmres2net.weights.reading import FLAG


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share; they are mmdet's, and ``--data``."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints, pictures; default: work_dirs/CONFIG[-ARCH]')
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="put a Res2Net in the place of the config's ResNet, e.g. res2net50_26w_4s; all changes are printed",
    )
    parser.add_argument('--data', metavar='DIR', help="folder in the data set's standard layout")
    parser.add_argument(
        FLAG,
        action='store_true',
        help='RUNS CODE FROM THE FILE where a checkpoint asks for it; for files whose maker you know and trust. '
        'Without it such files are refused; nothing that was trained here needs it',
    )
    parser.add_argument('--skip-data-check', action='store_true', help='start without checking the data')
    parser.add_argument('--plain', action='store_true', help="run the hosts' own modules in their own memory format")
    parser.add_argument(
        '--profile',
        nargs='?',
        const=STEPS,
        type=int,
        metavar='STEPS',
        help=f'print where the time of STEPS steps goes (default: {STEPS}) and stop: nothing is trained or saved',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config, e.g. train_dataloader.batch_size=4',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes start'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def world_size(launcher: str) -> int:
    """Return the number of processes that ``launcher`` has started."""
    names = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}
    return int(os.environ.get(names[launcher], 1)) if launcher in names else 1


def is_first_process(launcher: str) -> bool:
    """Whether this process is the one that checks and reports."""
    names = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
    return int(os.environ.get(names[launcher], 0)) == 0 if launcher in names else True


def check_launcher(launcher: str, gpus: int) -> None:
    """Check that each process on this machine has a GPU of its own, which MMEngine takes for granted.

    Raises:
        UserError: There are fewer.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if launcher != 'none' and gpus < processes:
        raise UserError(
            f'--launcher {launcher}: {processes} processes on this machine, but torch sees {gpus} GPUs, and each needs '
            'one; start fewer, or one process without --launcher'
        )


def prepare(args: argparse.Namespace, parts: Sequence[str]) -> Config:
    """Return the config of a run with the common flags applied and its data in place.

    Args:
        args: The parsed flags.
        parts: The parts of the data that the run reads: of ``train``, ``val``, ``test``.

    Raises:
        UserError: The config, a flag or the data do not fit.
    """
    check_launcher(args.launcher, torch.cuda.device_count())
    if args.profile is not None and args.profile < 1:
        raise UserError(f'--profile {args.profile}: there must be one step at least to measure')
    if args.backbone:
        cfg = swap_and_say(args, training='train' in parts)
    else:
        cfg = load_config(args.config, args.cfg_options)
        cfg.work_dir = work_dir_of(cfg, cfg.filename, args.work_dir)
    if args.profile and cfg.get('compile'):
        raise UserError("--profile cannot look into a compiled step: add 'compile=False' to --cfg-options")
    cfg.launcher = args.launcher
    if args.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    parts = [part for part in parts if cfg.get(f'{part}_dataloader')]
    if args.data:
        cfg = point_at(cfg, args.data, parts)
    elif cfg.get('embedded_data') and is_first_process(args.launcher):
        embed(cfg.embedded_data)
    if world_size(args.launcher) == 1:
        cfg, lines = single_process_norms(cfg)
        say('one process: synchronised batch norm becomes batch norm', lines)
    if is_first_process(args.launcher) and not args.skip_data_check:
        check_before_training(cfg, parts)
    return cfg


def swap_and_say(args: argparse.Namespace, training: bool) -> Config:
    """Return the config with its backbone swapped; the first process says so, and training keeps it as a file.

    Raises:
        UserError: The backbone of this config cannot be swapped.
    """
    cfg, lines = load_swapped(args, training=training)
    if is_first_process(args.launcher):
        say(f'--backbone {args.backbone}', lines)
        if training:
            print(f'the swapped config: {write_swapped(cfg)}')
    return cfg


def embed(root: str) -> None:
    """Make the embedded data set at ``root`` unless it is there.

    Raises:
        UserError: Something else is there, or the set was changed.
    """
    try:
        make_shapes(root)
    except (OSError, ValueError) as error:
        raise UserError(f'the embedded data set cannot be made: {error}') from error


def say(title: str, lines: Sequence[str]) -> None:
    """Print what was changed, if anything was."""
    if lines:
        print('\n  '.join([f'{title}:', *lines]))


def build_runner(cfg: Config, *, plain: bool = False, profile: int | None = None) -> Runner:
    """Return MMEngine's runner of ``cfg``, sped up unless ``plain``; ``profile`` steps are measured and no more done.

    Raises:
        UserError: Something in the config cannot be built.
    """
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f'this config cannot be built: {error}') from error
    if not plain:
        runner.register_hook(SpeedUpHook())
    if profile:
        # What writes files is no part of a step, and shall leave none.
        runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, CheckpointHook | PicturesHook)]
        runner.register_hook(ProfileHook(steps=profile))
    return runner


def build_loops(runner: Runner, parts: Sequence[str]) -> list[Any]:
    """Build the loops of ``parts`` and return their data sets; the runner goes on with the same objects.

    Raises:
        UserError: A data set cannot be built.
    """
    try:
        loops = [getattr(runner, f'{part}_loop') for part in parts if getattr(runner, f'_{part}_loop') is not None]
    except (TypeError, ValueError, KeyError, AssertionError, OSError) as error:
        raise UserError(f'a data set of this config cannot be built: {error}') from error
    return [loop.dataloader.dataset for loop in loops]


def check_data(runner: Runner, parts: Sequence[str], args: argparse.Namespace) -> None:
    """Check the built data sets in the first process, unless the user does not want to wait for it."""
    datasets = build_loops(runner, parts)
    if is_first_process(args.launcher) and not args.skip_data_check:
        check_images(datasets)


def say_pictures(runner: Runner) -> None:
    """Log where the pictures of the last evaluation are, if any were drawn."""
    folder = Path(runner.work_dir) / FOLDER
    if folder.is_dir():
        print_log(f'pictures (annotations left, predictions right): {folder}', 'current')


def cuda_available() -> bool:
    """Whether torch sees a GPU."""
    return torch.cuda.is_available()
