"""``sweep draw``: figure 4 from finished runs, as a plot with error bars and as tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.plots import PALETTE, save
from mmres2net.sweep.runs import AXES, Network, Run

STYLES = {'cardinality': (PALETTE[0], 'o'), 'depth': (PALETTE[-1], '^'), 'scale': (PALETTE[1], 's')}


def points_of(runs: Sequence[Run], *, best: bool = False) -> tuple[list[dict[str, Any]], list[Run]]:
    """Return a row for each network along each axis, and the runs that differ from the baseline in several.

    The baseline, the smallest network in each dimension, is the first point of each axis. A point is the mean of its
    runs, which differ in their seeds, and their standard deviation (None for a single run). A UserError says that there
    is no baseline or no other run, or that widths or numbers of epochs differ.
    """
    if not runs:
        raise UserError('none of these runs is finished')
    for name, values in (('width', {r.network.width for r in runs}), ('number of epochs', {r.epochs for r in runs})):
        if len(values) > 1:
            raise UserError(f'all runs must have the same {name}, but have {sorted(values)}; draw them separately')
    groups: dict[Network, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.network):
        groups.setdefault(run.network, []).append(run)
    baseline = Network(**{axis: min(getattr(n, axis) for n in groups) for axis in AXES}, width=runs[0].network.width)
    if baseline not in groups:
        raise UserError(f'no finished run has the baseline {baseline.name}, the smallest network in each dimension')
    rows = []
    for axis in AXES:
        line = [network for network in groups if baseline.changed(network) in ([], [axis])]
        rows += [_point(axis, groups[network], best) for network in line if len(line) > 1]
    if not rows:
        raise UserError(f'no run differs from {baseline.name} in one dimension; there is no line to draw')
    return rows, [run for run in runs if len(baseline.changed(run.network)) > 1]


def _point(axis: str, runs: Sequence[Run], best: bool) -> dict[str, Any]:
    accuracies = [run.accuracies() for run in runs]
    values = [max(each.values()) if best else each[runs[0].epochs] for each in accuracies]
    return {
        'axis': axis, **vars(runs[0].network), 'parameters': runs[0].parameters, 'epochs': runs[0].epochs,
        'top1': mean(values), 'std': stdev(values) if len(values) > 1 else None, 'seeds': len(values),
        'runs': ' '.join(str(run.folder) for run in runs),
    }  # fmt: skip


def write(path: Path, rows: Sequence[dict[str, Any]], *, best: bool) -> list[Path]:
    """Write the plot ``path`` and beside it the same points as CSV and JSON; return all three files."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    files = [path, path.with_suffix('.csv'), path.with_suffix('.json')]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        which = 'best of all epochs' if best else 'last epoch'
        save(path, lambda figure: _draw(figure.subplots(), rows, which), width=6.4, height=4.6)
        write_atomic(files[1], table.getvalue())
        write_atomic(files[2], json.dumps(rows, indent=1) + '\n')
    except (OSError, ValueError) as error:
        raise UserError(f'--figure {path}: {error}') from error
    return files


def _draw(axes: Any, rows: Sequence[dict[str, Any]], which: str) -> None:
    for axis, (color, marker) in STYLES.items():
        line = [row for row in rows if row['axis'] == axis]
        x, y = [row['parameters'] / 1e6 for row in line], [row['top1'] for row in line]
        errors = [row['std'] or 0 for row in line]
        if line:
            axes.errorbar(x, y, yerr=errors, label=axis, color=color, marker=marker, markersize=5, capsize=3)
        for row, *point in zip(line, x, y, strict=True):
            axes.annotate(row[axis], point, (4, -10), textcoords='offset points', fontsize=7, color=color)
    seeds = sorted({row['seeds'] for row in rows})
    count = f'{seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else str(seeds[0])
    axes.set_title(f'mean and standard deviation of {count} seeds per point', fontsize=9)
    axes.set_xlabel('parameters (M)')
    axes.set_ylabel(f'test accuracy, top-1 (%), {which}')
    axes.margins(x=0.1)
    axes.legend(fontsize=8)
