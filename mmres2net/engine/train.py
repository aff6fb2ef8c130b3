"""``mmres2net train``: train any config of mmdet, mmseg or mmpretrain."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from mmres2net.engine.config import batch_notice, with_amp, with_scaled_lr, without_published_weights, without_weights
from mmres2net.engine.launch import (
    add_common_flags,
    build_runner,
    check_data,
    cuda_available,
    is_first_process,
    prepare,
    say,
    say_pictures,
    world_size,
)
from mmres2net.engine.loading import safe_loading
from mmres2net.engine.profiling import ProfileDone
from mmres2net.engine.weights import check_checkpoint, check_pixels, fetch_weights
from mmres2net.errors import UserError
from mmres2net.report import metric_table

PARTS = ('train', 'val')


def parser(prog: str = 'mmres2net train') -> argparse.ArgumentParser:
    """Return the flags of training: mmdet's, ``--data`` and ``--from-scratch``."""
    flags = argparse.ArgumentParser(prog=prog, description='Train a config of mmdet, mmseg or mmpretrain.')
    flags.add_argument(
        'config', help='a config file, the name of a shipped one, or mmdet::NAME, mmseg::NAME ... of a host'
    )
    add_common_flags(flags)
    flags.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    flags.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the images a step')
    flags.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT, or from the latest of the work folder',
    )
    flags.add_argument('--from-scratch', action='store_true', help='train without published weights, nothing frozen')
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Train by the flags in ``argv`` and log the last evaluation's table.

    Raises:
        UserError: A mistake in config, flags, data or weights, before training starts.
    """
    args = parser().parse_args(argv)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint):
        _train(args)


def _train(args: argparse.Namespace) -> None:
    cfg = start_of(prepare_training(args), args)
    runner = build_runner(cfg, plain=args.plain, profile=args.profile)
    check_data(runner, PARTS, args)
    try:
        runner.train()
    except ProfileDone:
        return
    if is_first_process(args.launcher):
        report(runner)


def prepare_training(args: argparse.Namespace) -> Config:
    """Return the config with the training flags applied."""
    cfg = prepare(args, PARTS)
    if not cfg.get('train_dataloader') or not cfg.get('train_cfg'):
        raise UserError(f'{args.config} has no train_dataloader or train_cfg: it cannot be trained')
    if args.amp:
        cfg = with_amp(cfg, cuda_available())
    if args.auto_scale_lr:
        cfg = with_scaled_lr(cfg)
    if args.from_scratch:
        cfg, lines = without_weights(cfg)
        say('from scratch', lines)
    notice = batch_notice(cfg, world_size(args.launcher))
    say('note', [notice] if notice else [])
    return cfg


def start_of(cfg: Config, args: argparse.Namespace) -> Config:
    """Return ``cfg`` with the state that training starts from: a run's checkpoint, or weights that are there."""
    unsafe: bool = args.allow_unsafe_checkpoint
    if args.resume == 'auto':
        latest = find_latest_checkpoint(cfg.work_dir)
        if latest is None:
            say('note', [f'nothing to resume in {cfg.work_dir}: training starts at the beginning'])
        else:
            cfg.resume = True
            cfg.load_from = str(check_checkpoint(latest, 'the latest of the work folder', allow_pickle=unsafe))
    elif args.resume:
        cfg.resume = True
        cfg.load_from = str(check_checkpoint(args.resume, 'named by --resume', allow_pickle=unsafe))
    elif cfg.get('load_from'):
        cfg.load_from = str(check_checkpoint(cfg.load_from, 'named by load_from', allow_pickle=unsafe))
    if args.resume and cfg.get('resume'):
        return without_published_weights(cfg)  # MMEngine would load them first, and need them to be there
    if is_first_process(args.launcher):
        say('note', check_pixels(cfg))
        fetch_weights(cfg, allow_pickle=unsafe)
    return cfg


def report(runner: Runner) -> None:
    """Log the last evaluation, and where checkpoints and pictures are."""
    scalars = runner.message_hub.log_scalars
    names = [name for name in scalars if name.startswith('val/') and name not in ('val/time', 'val/data_time')]
    metrics = {name[4:]: float(scalars[name].current()) for name in names}
    print_log('\n' + metric_table(metrics, 'last evaluation'), 'current')
    print_log(f'checkpoints and logs: {Path(runner.work_dir)}{os.sep}', 'current')
    say_pictures(runner)
