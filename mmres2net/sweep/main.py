"""``mmres2net sweep``: train the networks of figure 4, and draw it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmres2net.sweep.drawing import lines_of, table_of, write
from mmres2net.sweep.grid import AXES, VALUES, WIDTH, networks_of
from mmres2net.sweep.job import keep_settings, plan, run_all, tasks_of
from mmres2net.sweep.runs import Run, find_runs

CONFIG = 'cifar100/resnext29_6c24w.py'
OUT = 'work_dirs/sweep'


def parser(prog: str = 'mmres2net sweep') -> argparse.ArgumentParser:
    """Return the flags of both parts."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description="The paper's figure 4: test accuracy on CIFAR-100 by the size of the network, for cardinality, "
        'depth and scale, each varied alone.',
    )
    parts = flags.add_subparsers(dest='part', required=True, metavar='run|draw')
    _add_run(parts.add_parser('run', help='train the networks, one after another; finished ones are skipped'))
    _add_draw(parts.add_parser('draw', help='draw finished runs and write their table'))
    return flags


def _add_run(flags: argparse.ArgumentParser) -> None:
    flags.add_argument('--out', default=OUT, metavar='DIR', help=f'folder of all runs; default: {OUT}')
    flags.add_argument('--data', metavar='DIR', help="folder in the data set's standard layout")
    flags.add_argument('--config', default=CONFIG, help=f'what is varied; default: {CONFIG}')
    flags.add_argument('--axes', nargs='+', choices=AXES, default=list(AXES), metavar='AXIS', help=f'of {AXES}')
    for axis, values in VALUES.items():
        text = f'the smallest is the baseline; default: {" ".join(map(str, values))}'
        flags.add_argument(f'--{axis}', nargs='+', type=int, default=list(values), metavar='N', help=text)
    flags.add_argument('--width', type=int, default=WIDTH, metavar='N', help=f'channels of a group; default: {WIDTH}')
    flags.add_argument('--dry-run', action='store_true', help='list the runs with size and state, and start none')
    flags.add_argument('--amp', action='store_true', help='as in training')
    flags.add_argument('--plain', action='store_true', help='as in training')
    flags.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='settings that override the config'
    )


def _add_draw(flags: argparse.ArgumentParser) -> None:
    flags.add_argument('folders', nargs='+', metavar='WORK_DIR', help='the --out of a sweep, or work folders of runs')
    flags.add_argument('--figure', metavar='FILE', help='the picture; default: figure4.png in the first WORK_DIR')
    flags.add_argument(
        '--best',
        action='store_true',
        help='draw the best epoch of each run instead of the last; it is chosen by the test images it is tested on',
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run or draw by the flags in ``argv``; return 1 if a run failed, else 0.

    Raises:
        UserError: A mistake in flags, config, data or folders, before work starts.
    """
    args = parser().parse_args(argv)
    return _run(args) if args.part == 'run' else _draw(args)


def _run(args: argparse.Namespace) -> int:
    values = {axis: getattr(args, axis) for axis in AXES}
    tasks = tasks_of(networks_of(values, args.axes, args.width), args)
    if args.dry_run:
        print(plan(tasks))
        return 0
    keep_settings(args)
    failed = run_all(tasks)
    print(plan(tasks))
    if failed:
        print(f'{len(failed)} of {len(tasks)} runs failed; the same command tries them again', file=sys.stderr)
    print(f'draw what is finished: mmres2net sweep draw {args.out}')
    return int(bool(failed))


def _draw(args: argparse.Namespace) -> int:
    runs = find_runs(args.folders)
    finished = [run for run in runs if run.is_finished]
    for run in runs:
        if not run.is_finished:
            _left_out(run, f'{run.done} of {run.epochs} epochs')
    lines, apart = lines_of(finished)
    for run in apart:
        _left_out(run, 'differs from the baseline in more than one dimension')
    files = write(Path(args.figure or Path(args.folders[0]) / 'figure4.png'), lines, best=args.best)
    for row in table_of(lines):
        print(f'  {row["axis"]:<11} {row[row["axis"]]:>4}  {row["parameters"] / 1e6:6.2f}M', end='')
        print(f'  top-1 {row["top1_last"]:.2f} (best {row["top1_best"]:.2f})')
    print('written: ' + ', '.join(map(str, files)))
    return 0


def _left_out(run: Run, why: str) -> None:
    print(f'left out: {run.folder}: {why}', file=sys.stderr)
