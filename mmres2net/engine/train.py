"""``mmres2net train``: train any config of mmdet, mmseg or mmpretrain."""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.config import Config

from mmres2net.engine import config, resume
from mmres2net.engine.checkpoints import remove_leftovers, with_checkpoints
from mmres2net.engine.console import log_notes
from mmres2net.engine.exact import ExactHook
from mmres2net.engine.launcher import is_first_here, is_first_process, is_restarted, processes, world_size
from mmres2net.engine.profiling import ProfileDone
from mmres2net.engine.run import GuardHook, build_runner, check_built, prepare, run
from mmres2net.engine.stopping import StopHook
from mmres2net.engine.switches import averages_weights, with_training_switches
from mmres2net.engine.weights import check_checkpoint, check_normalization, fetch_weights, safe_loading
from mmres2net.errors import Interrupted, UserError
from mmres2net.files import writable_dir
from mmres2net.flags import parse

PARTS = ('train', 'val')


def main(argv: Sequence[str] | None = None) -> None:
    """Train by the flags in ``argv``. Before training starts, errors are a UserError, later ones a RunError."""
    begin = time.monotonic()
    args = parse('train', argv)
    if is_restarted(args.launcher):
        args.resume, args.overwrite = args.resume or 'auto', False
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint), processes(args.launcher), ExitStack() as stack:
        cfg, notes = prepare_training(args)
        folder = writable_dir(cfg.work_dir, '--work-dir')
        if is_first_process(args.launcher) and not args.profile:
            stack.enter_context(resume.held(folder))
            remove_leftovers(folder)
        if cfg.filename.endswith(config.RUN) and is_first_process(args.launcher):
            notes.append(f'the config with these changes: {config.write_config(cfg)}')
        start = find_start(cfg, args)
        if start is not None:
            if not args.profile and (text := resume.finished(start, cfg)):
                if is_first_process(args.launcher):
                    print(text)
                return
            if 'ema_state_dict' in start.parts and not averages_weights(cfg):
                raise UserError(f'{start.path} is of a run with averaged weights: resume it with --ema')
            notes += [*start.notes, *resume.changes_since(start, cfg, world_size(args.launcher))]
            # MMEngine takes it over when the order of the images is made already.
            if 'seed' in start.meta:
                cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': start.meta['seed']}
        stop = StopHook(ExactHook(), begin=begin, minutes=args.max_minutes, every=args.checkpoint_every)
        _train(cfg, args, notes, stop)


def _train(cfg: Config, args: argparse.Namespace, notes: list[str], stop: StopHook) -> None:
    cfg, more = load_start(cfg, args)
    runner = build_runner(cfg, plain=args.plain, profile=args.profile, style=args.log_style)
    check_built(runner, PARTS, args)
    runner.register_hook(stop.exact)
    runner.register_hook(stop)
    log_notes([*notes, *more])
    try:
        with safe_loading(allow_pickle=args.allow_unsafe_checkpoint, work_dir=cfg.work_dir):
            run(runner, runner.train, GuardHook(overwrite=args.overwrite and not args.profile))
    except ProfileDone:
        return
    except Interrupted as reason:
        stop.finish(runner)
        saved = resume.checkpoints_in(Path(cfg.work_dir))
        way = 'the same command with --resume, not --overwrite, continues' if saved else 'no checkpoint was saved yet'
        reason.args = (f'{reason} at step {stop.step}; {way}',)
        raise


def prepare_training(args: argparse.Namespace) -> tuple[Config, list[str]]:
    """Return the config with the training flags applied, and notes; a UserError for errors in config, flags or data."""
    cfg, notes = prepare(args, PARTS)
    cfg = with_checkpoints(config.with_hook(cfg, 'finite_loss', 'mmres2net.FiniteLossHook'))
    cfg = config.with_hook(cfg, 'results', 'mmres2net.ResultsHook')
    cfg, lines = with_training_switches(cfg, args)
    notes += lines
    scaled = args.auto_scale_lr or bool((cfg.get('auto_scale_lr') or {}).get('enable'))
    notes += config.batch_notes(cfg, world_size(args.launcher), scaled=scaled)
    if scaled:
        cfg = config.with_scaled_lr(cfg)
    if args.from_scratch:
        cfg, lines = config.without_weights(cfg)
        notes += [f'from scratch: {line}' for line in lines]
    return cfg, notes


def find_start(cfg: Config, args: argparse.Namespace) -> resume.Start | None:
    """Return the checkpoint that the run is resumed from, None for a new run; the config is set accordingly.

    ``resume=True`` in the config means the same as ``--resume``. A UserError says that the checkpoint cannot be resumed
    from, or the run would overwrite those of another one.
    """
    folder, unsafe = Path(cfg.work_dir), args.allow_unsafe_checkpoint
    asked = args.resume or (cfg.get('resume') and not args.overwrite and (cfg.get('load_from') or 'auto'))
    cfg.resume = False
    if not asked:
        if not args.overwrite and not args.profile and is_first_process(args.launcher):
            resume.check_unused(folder)
        return None
    automatic = asked == 'auto' or (is_restarted(args.launcher) and bool(resume.checkpoints_in(folder)))

    def choose() -> resume.Start | str | None:
        if automatic:
            return resume.newest_start(folder, allow_pickle=unsafe)
        name = check_checkpoint(asked, 'named by --resume', allow_pickle=unsafe)
        return resume.read_start(Path(name), allow_pickle=unsafe) if Path(name).is_file() else name

    start = resume.same_start(choose, folder, allow_pickle=unsafe, first_here=is_first_here(args.launcher))
    if isinstance(start, str):  # a folder or a store, which MMEngine reads itself
        cfg.resume, cfg.load_from = True, start
        return None
    if start is not None:
        cfg.resume, cfg.load_from = True, str(start.path)
    return start


def load_start(cfg: Config, args: argparse.Namespace) -> tuple[Config, list[str]]:
    """Make sure that all weights that training starts from are here and fit; return the config and notes."""
    unsafe: bool = args.allow_unsafe_checkpoint
    if cfg.resume:
        return config.without_published_weights(cfg), []  # MMEngine would load them first, and need them to be there
    notes = [f'nothing to resume in {cfg.work_dir}: training starts at the beginning'] if args.resume else []
    if cfg.get('load_from'):
        cfg.load_from = str(check_checkpoint(cfg.load_from, 'named by load_from', allow_pickle=unsafe))
    if is_first_here(args.launcher):
        notes += check_normalization(cfg)
        fetch_weights(cfg, allow_pickle=unsafe)
    return cfg, notes
