"""``mmres2net test``: evaluate a checkpoint of any config of mmdet, mmseg or mmpretrain."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmres2net.engine.launch import add_common_flags, build_runner, check_data, is_first_process, prepare, say_pictures
from mmres2net.engine.loading import safe_loading
from mmres2net.engine.profiling import ProfileDone
from mmres2net.engine.weights import check_checkpoint
from mmres2net.errors import UserError
from mmres2net.report import metric_table

PARTS = ('test',)


def parser(prog: str = 'mmres2net test') -> argparse.ArgumentParser:
    """Return the flags of testing: mmdet's and ``--data``."""
    flags = argparse.ArgumentParser(prog=prog, description='Evaluate a checkpoint on the test split of its config.')
    flags.add_argument(
        'config', help='a config file, the name of a shipped one, or mmdet::NAME, mmseg::NAME ... of a host'
    )
    flags.add_argument('checkpoint', help='a checkpoint of this config')
    add_common_flags(flags)
    flags.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    flags.add_argument('--pictures', type=int, metavar='N', help='draw the first N images; default: as the config says')
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate by the flags in ``argv`` and log the table.

    Raises:
        UserError: A mistake in config, flags, data or checkpoint, before the evaluation starts.
    """
    args = parser().parse_args(argv)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint):
        _test(args)


def _test(args: argparse.Namespace) -> None:
    cfg = prepare_testing(args)
    runner = build_runner(cfg, plain=args.plain, profile=args.profile)
    check_data(runner, PARTS, args)
    try:
        metrics = runner.test()
    except ProfileDone:
        return
    if is_first_process(args.launcher):
        print_log('\n' + metric_table(metrics, f'{args.checkpoint} on the test split'), 'current')
        say_pictures(runner)


def prepare_testing(args: argparse.Namespace) -> Config:
    """Return the config with the test flags applied."""
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: predictions are written as a pickle, so the name must end in .pkl or .pickle'
        )
    if args.out and args.profile:
        raise UserError('--profile evaluates nothing, so there is nothing to write with --out')
    checkpoint = check_checkpoint(args.checkpoint, 'the checkpoint to test', allow_pickle=args.allow_unsafe_checkpoint)
    cfg = prepare(args, PARTS)
    if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise UserError(f'{args.config} has no test_dataloader or test_evaluator: there is nothing to test on')
    cfg.load_from, cfg.resume = str(checkpoint), False
    hooks = [dict(hook) for hook in cfg.get('custom_hooks') or []]
    if args.pictures is not None:
        hooks = [hook for hook in hooks if hook['type'] != 'mmres2net.PicturesHook']
        hooks += [{'type': 'mmres2net.PicturesHook', 'count': args.pictures}] if args.pictures else []
    cfg.custom_hooks = [*hooks, {'type': 'mmres2net.FittingCheckpointHook'}]
    if args.out:
        evaluators: Any = cfg.test_evaluator
        evaluators = list(evaluators) if isinstance(evaluators, list | tuple) else [evaluators]
        cfg.test_evaluator = [*evaluators, {'type': 'DumpResults', 'out_file_path': args.out}]
    return cfg
