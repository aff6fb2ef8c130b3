"""``mmres2net sweep``: train the networks of figure 4, a process for each run, and draw it from finished runs.

The work dirs are the state: a finished run is skipped, an interrupted one is resumed, and a failing run does not stop
the others. So the same command, given again, continues.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmres2net.engine.config import load_config
from mmres2net.engine.train import prepare_training
from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.flags import parse
from mmres2net.plots import PALETTE, save
from mmres2net.sweep.runs import AXES, Network, Run, find_runs, networks_of, run_of
from mmres2net.text import format_table

SETTINGS = 'sweep.json'
FIXED = ('model.backbone.depths', 'model.backbone.base_width', 'model.backbone.scales', 'model.backbone.cardinality')
STYLES = {'cardinality': (PALETTE[0], 'o'), 'depth': (PALETTE[-1], '^'), 'scale': (PALETTE[1], 's')}
Task = tuple[Run, list[str]]  # a run and the flags of its training


def main(argv: Sequence[str] | None = None) -> int:
    """Run or draw by the flags in ``argv``; return 1 if a run failed, else 0. A UserError: wrong flags or data."""
    args = parse('sweep', argv)
    return _run(args) if args.part == 'run' else _draw(args)


def tasks_of(args: argparse.Namespace) -> list[Task]:
    """Return all runs; a UserError if a flag, the config, a network or the data have an error."""
    fixed = [option for option in args.cfg_options if option.startswith((*FIXED, 'randomness.seed'))]
    if fixed:
        raise UserError(f'--cfg-options {" ".join(fixed)}: use --{", --".join((*AXES, "width", "seeds"))} instead')
    tasks: list[Task] = []
    values = {axis: getattr(args, axis) for axis in AXES}
    for network in networks_of(values, args.axes, args.width):
        for seed in sorted(set(args.seeds)):
            folder = Path(args.out) / f'{network.name}_seed{seed}'
            flags = [args.config, '--work-dir', str(folder), *(['--data', args.data] if args.data else [])]
            flags += [f'--{name}' for name in ('amp', 'plain') if getattr(args, name)]
            flags += ['--cfg-options', *args.cfg_options, *network.options, f'randomness.seed={seed}']
            parsed = parse('train', flags, prog='mmres2net sweep run')
            is_checked = bool(tasks) or args.dry_run
            cfg = load_config(parsed.config, parsed.cfg_options) if is_checked else prepare_training(parsed)[0]
            run = run_of(folder, cfg)
            if run.network != network:
                raise UserError(f'{args.config}: its backbone becomes {run.network.name} instead of {network.name}')
            tasks.append((run, flags))
    return tasks


def _run(args: argparse.Namespace) -> int:
    tasks = tasks_of(args)
    if not args.dry_run:
        _keep_settings(args)
        for i, (run, flags) in enumerate(tasks):
            state = run.state
            print(f'[{i + 1}/{len(tasks)}] {run.folder.name}: {state}', flush=True)
            if state != 'finished':
                resume = ['--resume'] if run.folder.is_dir() else []  # it starts anew where there is no checkpoint
                command = [sys.executable, '-m', 'mmres2net', 'train', *flags, *resume]
                status = subprocess.run(command, check=False).returncode
                if status:
                    print(f'{run.folder.name} ended with status {status}; the other runs continue', flush=True)
    rows = [(run.folder.name, f'{run.parameters / 1e6:.2f}M', run.state) for run, _ in tasks]
    print(format_table(rows, ('run', 'parameters', 'state')))
    failed = 0 if args.dry_run else sum(state != 'finished' for *_, state in rows)
    if failed:
        print(f'{failed} of {len(tasks)} runs are not finished; the same command tries them again', file=sys.stderr)
    return int(failed > 0)


def _keep_settings(args: argparse.Namespace) -> None:
    """Write down the settings that all runs share, or compare them with those of the runs that are there."""
    path = Path(args.out) / SETTINGS
    settings = {'config': args.config, 'cfg_options': args.cfg_options, 'amp': args.amp}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None
        if before is None:
            write_atomic(path, json.dumps(settings, indent=1) + '\n')
    except (OSError, ValueError) as error:
        raise UserError(f'--out {args.out}: {path} cannot be read or written: {error}') from error
    if before not in (None, settings):
        raise UserError(f'--out {args.out} has runs with other settings, {before}; choose another folder')


def _draw(args: argparse.Namespace) -> int:
    runs = find_runs(args.folders)
    states = {run.folder: run.state for run in runs}
    rows, others = points_of([run for run in runs if states[run.folder] == 'finished'])
    states |= {run.folder: 'differs from the baseline in several dimensions' for run in others}
    for folder, state in states.items():
        if state != 'finished':
            print(f'left out: {folder}: {state}', file=sys.stderr)
    files = write(Path(args.figure or Path(args.folders[0]) / 'figure4.png'), rows)
    keys = ('axis', 'depth', 'cardinality', 'scale', 'width', 'parameters', 'seeds')
    numbers = [[f'{row[key]:.2f}' if row[key] is not None else '' for key in ('top1', 'std')] for row in rows]
    table = [(*(row[key] for key in keys), *pair) for row, pair in zip(rows, numbers, strict=True)]
    print(format_table(table, (*keys, 'top-1', 'std')))
    print('written: ' + ', '.join(map(str, files)))
    return 0


def points_of(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[Run]]:
    """Return a row for each network along each axis, and the runs that differ from the baseline in several.

    The baseline, the smallest network in each dimension, is the first point of each axis. Networks of other scales may
    have other widths, as those of equal complexity. A point is the mean of its runs, which differ in their seeds, and
    their standard deviation (None for a single run). A UserError says that there is no baseline or no other run, or
    that widths or numbers of epochs differ.
    """
    if not runs:
        raise UserError('none of these runs is finished')
    groups: dict[Network, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.network):
        groups.setdefault(run.network, []).append(run)
    baseline = min(groups)
    if any(getattr(network, axis) < getattr(baseline, axis) for network in groups for axis in AXES):
        raise UserError(f'no finished run is the smallest network in each dimension; {baseline.name} is not')
    widths = {network.width for network in groups if network.scale == baseline.scale}
    for name, values in (('width at one scale', widths), ('number of epochs', {run.epochs for run in runs})):
        if len(values) > 1:
            raise UserError(f'all runs must have the same {name}, but have {sorted(values)}; draw them separately')
    rows = []
    for axis in AXES:
        line = [network for network in groups if baseline.changed(network) in ([], [axis])]
        rows += [_point(axis, groups[network]) for network in line if len(line) > 1]
    if not rows:
        raise UserError(f'no run differs from {baseline.name} in one dimension; there is no line to draw')
    return rows, [run for run in runs if len(baseline.changed(run.network)) > 1]


def _point(axis: str, runs: Sequence[Run]) -> dict[str, Any]:
    values = [run.accuracies()[run.epochs] for run in runs]
    return {
        'axis': axis, **vars(runs[0].network), 'parameters': runs[0].parameters, 'epochs': runs[0].epochs,
        'top1': mean(values), 'std': stdev(values) if len(values) > 1 else None, 'seeds': len(values),
        'runs': {str(run.folder): run.accuracies() for run in runs},
    }  # fmt: skip


def write(path: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write the plot ``path`` and beside it the same points as JSON; return both files."""
    files = [path, path.with_suffix('.json')]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, lambda figure: _draw_axes(figure.subplots(), rows), width=6.4, height=4.6)
        write_atomic(files[1], json.dumps(rows, indent=1) + '\n')
    except (OSError, ValueError) as error:
        raise UserError(f'--figure {path}: {error}') from error
    return files


def _draw_axes(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    sizes = [row['parameters'] for row in rows]
    equal = max(sizes) < 1.05 * min(sizes)  # then the size tells nothing, and the axis itself is drawn
    for axis, (color, marker) in STYLES.items():
        line = [row for row in rows if row['axis'] == axis]
        x = [row[axis] if equal else row['parameters'] / 1e6 for row in line]
        y, errors = [row['top1'] for row in line], [row['std'] or 0 for row in line]
        if line:
            axes.errorbar(x, y, yerr=errors, label=axis, color=color, marker=marker, markersize=5, capsize=3)
        for row, *point in zip(line, x, y, strict=True):
            axes.annotate(row[axis], point, (4, -10), textcoords='offset points', fontsize=7, color=color)
    seeds = sorted({row['seeds'] for row in rows})
    count = f'{seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else str(seeds[0])
    axes.set_title(f'mean and standard deviation of {count} seeds per point', fontsize=9)
    alike = f'{rows[0]["axis"]}, at {min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} M parameters'
    axes.set_xlabel(alike if equal else 'parameters (M)')
    axes.set_ylabel('top-1 accuracy in validation (%), last epoch')
    axes.margins(x=0.1)
    axes.legend(fontsize=8)
