"""``sweep draw``: figure 4 from finished runs, as a picture and as tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmres2net.errors import UserError
from mmres2net.sweep.grid import AXES, Network
from mmres2net.sweep.runs import Run

NAMES = {'cardinality': 'cardinality c', 'depth': 'depth d', 'scale': 'scale s'}
MARKS = {'cardinality': ('c', '#2f6db3', 'o'), 'depth': ('d', '#6a6a6a', '^'), 'scale': ('s', '#c4432b', 's')}
COLUMNS = ('axis', 'depth', 'cardinality', 'scale', 'width', 'parameters', 'top1_last', 'top1_best', 'epochs', 'run')


def baseline_of(runs: Sequence[Run]) -> Run:
    """Return the run whose network is the smallest in each dimension.

    Raises:
        UserError: There is none, or the networks have different widths or numbers of epochs.
    """
    if not runs:
        raise UserError('none of these runs is finished: there is nothing to draw')
    common = {'width': {run.network.width for run in runs}, 'number of epochs': {run.epochs for run in runs}}
    for name, values in common.items():
        if len(values) > 1:
            listed = ', '.join(map(str, sorted(values)))
            raise UserError(f'the runs of a figure have one {name}, these have {listed}; draw them apart')
    smallest = {axis: min(getattr(run.network, axis) for run in runs) for axis in AXES}
    wanted = Network(**smallest, width=runs[0].network.width)
    baseline = next((run for run in runs if run.network == wanted), None)
    if baseline is None:
        raise UserError(
            f'no finished run is of the baseline {wanted.name}, which is the smallest in each dimension and where all '
            'lines begin'
        )
    return baseline


def lines_of(runs: Sequence[Run]) -> tuple[dict[str, list[Run]], list[Run]]:
    """Return the finished runs along each axis, the baseline first, and those that differ from it in several.

    Raises:
        UserError: No baseline, or nothing beside it.
    """
    baseline = baseline_of(runs)
    lines: dict[str, list[Run]] = {}
    apart = []
    for run in sorted(runs, key=lambda run: run.network):
        changed = baseline.network.changed(run.network)
        if len(changed) == 1:
            lines.setdefault(changed[0], [baseline]).append(run)
        elif changed:
            apart.append(run)
    if not lines:
        raise UserError(f'no run differs from {baseline.folder} in one dimension alone: there is no line to draw')
    return {axis: lines[axis] for axis in AXES if axis in lines}, apart


def table_of(lines: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """Return a row for each point of the figure, with the keys in ``COLUMNS``; the baseline has one for each line."""
    return [
        {
            'axis': axis,
            **{name: getattr(run.network, name) for name in ('depth', 'cardinality', 'scale', 'width')},
            'parameters': run.parameters,
            'top1_last': run.top1(best=False),
            'top1_best': run.top1(best=True),
            'epochs': run.epochs,
            'run': str(run.folder),
        }
        for axis, line in lines.items()
        for run in line
    ]


def write(path: Path, lines: Mapping[str, Sequence[Run]], *, best: bool) -> list[Path]:
    """Write the picture ``path`` and beside it the same points as CSV and JSON; return all three files.

    Raises:
        UserError: The folder cannot be written to, or the picture is of no known format.
    """
    rows = table_of(lines)
    files = [path, path.with_suffix('.csv'), path.with_suffix('.json')]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, lines, best=best)
        with files[1].open('w', newline='', encoding='utf-8') as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        files[2].write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    except (OSError, ValueError) as error:
        raise UserError(f'--figure {path}: {error}') from error
    return files


def draw(path: Path, lines: Mapping[str, Sequence[Run]], *, best: bool) -> None:
    """Draw test accuracy over parameters, a line for each axis, as figure 4 does."""
    # Imported where it is needed: only those who ask for a picture wait for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for axis, line in lines.items():
        letter, colour, marker = MARKS[axis]
        points = [(run.parameters / 1e6, run.top1(best)) for run in line]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=NAMES[axis])
        for run, point in list(zip(line, points, strict=True))[1:]:
            text = f'{letter}={getattr(run.network, axis)}'
            axes.annotate(text, point, (4, -10), textcoords='offset points', fontsize=7, color=colour)
    first = next(iter(lines.values()))[0]
    network = first.network
    which = 'best of all epochs' if best else 'last epoch'
    axes.plot(first.parameters / 1e6, first.top1(best), color='black', marker='*', markersize=11, linestyle='none')
    about = f'* depth {network.depth}, {network.cardinality}c{network.width}w, scale {network.scale}'
    axes.set_title(about, fontsize=9)
    axes.set_xlabel('parameters (M)')
    axes.set_ylabel(f'test accuracy, top-1 (%), {which}')
    axes.margins(x=0.1)  # room for the last points' names
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)
