"""``mmres2net test``: evaluate a checkpoint of any config of mmdet, mmseg or mmpretrain."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mmengine.config import Config

from mmres2net.engine import results  # noqa: F401 - registers DumpPredictions
from mmres2net.engine.config import with_hook
from mmres2net.engine.console import log_notes
from mmres2net.engine.launcher import is_first_process, processes
from mmres2net.engine.profiling import ProfileDone
from mmres2net.engine.provenance import write_provenance
from mmres2net.engine.run import GuardHook, build_runner, check_built, prepare, run
from mmres2net.engine.switches import with_tta
from mmres2net.engine.weights import check_checkpoint, safe_loading
from mmres2net.errors import UserError
from mmres2net.files import writable_dir, writable_file
from mmres2net.flags import parse

PARTS = ('test',)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate by the flags in ``argv`` and log the metrics; errors before that are a UserError, else a RunError."""
    args = parse('test', argv)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint), processes(args.launcher):
        _test(args)


def _test(args: argparse.Namespace) -> None:
    cfg, notes, checkpoint = prepare_testing(args)
    writable_dir(cfg.work_dir, '--work-dir')
    runner = build_runner(cfg, plain=args.plain, profile=args.profile, style=args.log_style)
    check_built(runner, PARTS, args)
    log_notes(notes)
    with suppress(ProfileDone):
        run(runner, runner.test, GuardHook(checkpoint=checkpoint))
        if is_first_process(args.launcher):
            write_provenance(cfg, checkpoint)


def prepare_testing(args: argparse.Namespace) -> tuple[Config, list[str], str]:
    """Return config, notes on what the test flags changed, and the checkpoint; a UserError for an error in them."""
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {args.out}: predictions are written as a pickle: the name must end in .pkl or .pickle')
    if args.out and args.profile:
        raise UserError('--profile evaluates nothing, so there is nothing to write with --out')
    if args.out:
        writable_file(args.out, '--out')
    checkpoint = check_checkpoint(args.checkpoint, 'the checkpoint to test', allow_pickle=args.allow_unsafe_checkpoint)
    cfg, notes = prepare(args, PARTS)
    cfg.load_from, cfg.resume = None, False  # GuardHook loads the checkpoint strictly
    draw = {} if args.draw is None else {'images': args.draw}
    cfg = with_hook(cfg, 'results', 'mmres2net.ResultsHook', **draw)
    if args.out:
        evaluators: Any = cfg.test_evaluator
        evaluators = list(evaluators) if isinstance(evaluators, list | tuple) else [evaluators]
        cfg.test_evaluator = [*evaluators, {'type': 'mmres2net.DumpPredictions', 'out_file_path': args.out}]
    if args.tta:
        cfg, lines = with_tta(cfg)
        notes += lines
    return cfg, notes, str(checkpoint)
