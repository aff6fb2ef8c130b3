"""The plots of the report, each as the data URI of an SVG; a side has the same color in all of them."""

import csv
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmres2net.compare.result import Calibration, Comparison, Confusion, Cost, Curve, Row, Side
from mmres2net.plots import PALETTE, Line, class_labels, draw_lines, save

GREY = '#9a9a9a'
METRIC = re.compile(r'(.*/)?(bbox_mAP|segm_mAP|mAP|mIoU|top1|maxF)')  # the column of results.csv that is drawn
MOST = 30  # rows and cells that are drawn


def as_uri(draw: Callable[[Any], None], width: float, height: float) -> str:
    """Return what ``draw`` puts into a figure of ``width`` x ``height`` inches."""
    with TemporaryDirectory() as folder:
        save(path := Path(folder) / 'plot.svg', draw, width, height)
        return f'data:image/svg+xml;base64,{b64encode(path.read_bytes()).decode()}'


def _values(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _line_plot(panels: Mapping[tuple[str, str, str], Sequence[Line]]) -> str:
    """Draw lines in panels; empty without a panel."""
    return as_uri(lambda figure: draw_lines(figure, panels), max(4.2 * len(panels), 5), 3.6) if panels else ''


def _named(sides: Sequence[Side]) -> list[tuple[str, str]]:
    """Return name and color of each side."""
    names = class_labels([side.name for side in sides], 'side')
    return [(name, PALETTE[number % len(PALETTE)]) for number, name in enumerate(names)]


def curve_plot(curves: Sequence[Curve], sides: Sequence[Side]) -> str:
    """Draw curves side by side, a line with its band for each side."""
    return _line_plot({
        (one.title, one.xlabel, one.ylabel): [
            (*side, one.x, _values(line.y), (_values(line.low), _values(line.high)) if line.low else None)
            for side, line in zip(_named(sides), one.lines, strict=True)
        ]
        for one in curves
    })  # fmt: skip


def calibration_plot(found: Sequence[Calibration], sides: Sequence[Side]) -> str:
    """Draw accuracy by confidence for each group, a line for each side."""
    colors = {side.name: named for side, named in zip(sides, _named(sides), strict=True)}
    panels: dict[tuple[str, str, str], list[Line]] = {}
    for one in found:
        lines = panels.setdefault((f'calibration {one.group}', 'confidence', 'accuracy'), [])
        lines += [] if lines else [('calibrated', GREY, [0, 1], [0, 1], None)]
        (name, color), error = colors[one.side], '' if one.ece is None else f', ECE {one.ece:.3f}'
        lines.append((name + error, color, _values(one.confidence), _values(one.accuracy), None))
    return _line_plot(panels)


def cost_plot(costs: Sequence[Cost], row: Row, sides: Sequence[Side]) -> str:
    """Draw a metric against the time of an image and against its multiply-adds, with intervals as bars."""
    panels: dict[tuple[str, str, str], list[Line]] = {}
    for (name, color), one, y in zip(_named(sides), costs, row.sides, strict=False):
        time, macs = one.milliseconds, one.macs and one.macs / 1e9
        for label, x in (('ms an image', (time.low, time.value, time.high)), ('multiply-adds (G)', (macs,) * 3)):
            if x[1] is not None:
                lines = panels.setdefault(('', label, row.name), [])
                lines.append((name, color, _values(x), _values([y.value] * 3), None))
                lines.append(('', color, _values([x[1]] * 3), _values([y.low, y.value, y.high]), None))
    return _line_plot(panels)


def training_plot(result: Comparison) -> str:
    """Draw loss, metric and learning rate of all runs by step, from their ``results.csv``; empty without any."""
    panels: dict[tuple[str, str, str], list[Line]] = {}
    for side, (name, color) in zip(result.sides, _named(result.sides), strict=True):
        for number, run in enumerate(side.runs):
            path = Path(run.folder) / 'results.csv'
            text = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else []
            rows = [row for row in csv.DictReader(text) if row.get('step')]
            metric = next((column for column in rows[0] if METRIC.fullmatch(column)), '') if rows else ''
            for column in ('loss', metric, 'lr'):
                points = [(float(row['step']), float(row[column])) for row in rows if row.get(column)]
                if points:
                    lines = panels.setdefault((column, 'step', ''), [])
                    lines.append(('' if number else name, color, *np.array(points).T, None))
    return _line_plot(panels)


def difference_plot(rows: Sequence[Row], sides: Sequence[Side], shown: Callable[[Any], bool]) -> str:
    """Draw differences with intervals, grey where not ``shown``; of many rows those with the largest and smallest."""
    names = list(dict.fromkeys(row.name for row in rows))
    labels = dict(zip(names, class_labels(names), strict=True))
    rows = [row for row in rows if row.differences[0].value is not None]
    if len(rows) > MOST:
        rows = sorted(rows, key=lambda row: -(row.differences[0].value or 0))
        rows = [*rows[: MOST // 2], *rows[-MOST // 2 :]]
    others = _named(sides)[1:]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for number, (name, color) in enumerate(others):
            for place, row in enumerate(rows):
                one, y = row.differences[number], place + (number - (len(others) - 1) / 2) * 0.6 / len(others)
                value, low, high = _values((one.value, one.low, one.high))
                axes.plot([low, value, high], [y] * 3, 'o-', color=color if shown(one) else GREY, markersize=4)
            axes.plot([], [], 'o-', color=color, label=name)
        axes.axvline(0, color='black', linewidth=1)
        axes.set_yticks(range(len(rows)), [f'{row.group} {labels[row.name]}'.strip() for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f'difference to {_named(sides)[0][0]}')
        axes.legend(fontsize=8, loc='lower left', bbox_to_anchor=(0, 1))  # above, where it hides nothing

    return as_uri(draw, 7, 1.1 + 0.24 * len(rows) * (0.6 + 0.4 * len(others))) if rows else ''


def confusion_plot(confusion: Confusion, sides: Sequence[Side]) -> str:
    """Draw the confusion matrix of each side in percent of the row, and how the others differ from the first one."""
    tables = np.array(confusion.tables, float)
    wrong = (tables.sum(1) + tables.sum(2) - 2 * np.diagonal(tables, axis1=1, axis2=2)).sum(0)
    kept = np.sort(np.argsort(-wrong, kind='stable')[:MOST])
    share = 100 * tables[:, kept][:, :, kept] / np.maximum(tables[:, kept].sum(2, keepdims=True), 1)
    names, labels = [name for name, _ in _named(sides)], [class_labels(confusion.names)[k] for k in kept]
    panels = [(name, one, 'Blues', 0.0, 100.0, '.0f') for name, one in zip(names, share, strict=True)]
    for name, one in zip(names[1:], share[1:] - share[0], strict=True):
        bound = max(float(np.abs(one).max()), 1.0)
        panels.append((f'{name}: difference', one, 'RdBu', -bound, bound, '+.0f'))

    def draw(figure: Any) -> None:
        grid = figure.subplots(1, len(panels), sharey=True)
        for axes, (title, one, colors, low, high, form) in zip(grid, panels, strict=True):
            axes.imshow(one, cmap=colors, vmin=low, vmax=high)
            axes.grid(visible=False)
            axes.set_xticks(range(len(kept)), labels, rotation=90, fontsize=8)
            axes.set_yticks(range(len(kept)), labels, fontsize=8)
            axes.set(title=title, xlabel='found', ylabel='annotated' if axes is grid[0] else '')
            for (i, j), value in np.ndenumerate(one) if len(kept) <= 12 else ():
                color = 'white' if abs(value) > 0.6 * high else 'black'
                text = format(value, form) if abs(value) >= 0.5 else ''
                axes.text(j, i, text, ha='center', va='center', fontsize=7, color=color)

    size = min(1.8 + 0.32 * len(kept), 7)
    return as_uri(draw, size * len(panels) + 0.8, size + 0.6)
