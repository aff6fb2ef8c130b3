"""The table and the plots of a run, from what the hook of results keeps."""

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmres2net import plots
from mmres2net.errors import reason_of
from mmres2net.evaluation import matches as m
from mmres2net.files import write_atomic
from mmres2net.text import overall, value_of

TIMES = ('time', 'data_time', 'memory')


@contextmanager
def left_out_on_error(what: str, seen: set[str] | None = None) -> Iterator[None]:
    """Log what fails in the block, once for each `what` in `seen`, and continue: a plot is not worth a run."""
    try:
        yield
    except plots.NothingToDraw as reason:
        print_log(f'{what} is left out: {reason}', 'current')
    except Exception as error:
        if seen is None or what not in seen:
            print_log(f'{what} is left out: {reason_of(error)}', 'current', logging.WARNING)
        if seen is not None:
            seen.add(what)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return those of ``metrics`` that are single numbers."""
    values = {name: value_of(value) for name, value in metrics.items()}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``rows`` as CSV, with a column for each name that any of them has."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, table.getvalue())


def history_of(runner: Runner) -> dict[str, np.ndarray]:
    """Return what training logged at each step: losses, learning rates and others, by name."""
    logged = {name[6:]: one.data[0] for name, one in runner.message_hub.log_scalars.items() if name[:6] == 'train/'}
    return {name: np.asarray(values, float) for name, values in logged.items() if name not in TIMES and len(values)}


def draw_history(path: Path, runner: Runner, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
    """Draw losses, learning rate and the metrics over all classes by training step."""
    history = history_of(runner)
    lines = {name: (np.arange(len(y)) + runner.iter - len(y) + 1, y) for name, y in history.items()}
    names = [name for name in overall(dict.fromkeys(k for row in rows for k in row), classes) if name not in history]
    metrics = {}
    for name in [name for name in names if name not in ('epoch', 'step', *TIMES)]:
        points = [(int(row['step']), float(row[name])) for row in rows if row.get(name) not in (None, '')]
        steps, found = np.array(points).T
        metrics[name] = (steps, np.where(found == -1, np.nan, found))  # COCO's value where no object has a size
    panels = {'losses': {name: line for name, line in lines.items() if 'loss' in name}, 'metrics': metrics}
    plots.draw_curves(path, {**panels, 'learning rate': {k: v for k, v in lines.items() if k == 'lr'}})


def draw_evaluation(folder: Path, arrays: Mapping[str, Any], title: str) -> None:
    """Draw what an evaluation found, from the arrays of :func:`mmres2net.evaluation.per_image.collected`."""
    task, names = str(arrays['task']), [str(name) for name in arrays['classes']]
    if task == 'detection':
        for kind, prefix in (('bbox', ''), ('segm', 'mask_')):
            if f'{kind}.score' in arrays:
                _draw_detection(folder, prefix, m.matches_of(arrays, kind), names, f'{kind}, {title}')
        return
    found, weight = (arrays['top'][:, 0], 1) if task == 'classification' else (arrays['found'], arrays['pixels'])
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (arrays['truth'], found), weight)
    with np.errstate(invalid='ignore', divide='ignore'):
        values = {'IoU': np.diag(table) / (table.sum(0) + table.sum(1) - np.diag(table))}
        values['accuracy'] = np.diag(table) / table.sum(1)
    if task == 'classification':
        del values['IoU']
    _draw(folder / 'per_class.png', plots.draw_bars, names, values, f'{" and ".join(values)} by class: {title}')
    _draw(folder / 'confusion_matrix.png', plots.draw_confusion, names, table, f'confusion matrix: {title}')


def _draw_detection(folder: Path, prefix: str, matches: m.Matches, names: Sequence[str], title: str) -> None:
    ap = m.average_precision(matches)
    for name, curves, words in (
        ('pr', m.precision_at_recall(matches)[0], ('Precision by recall at IoU 0.5', 'recall', 'precision')),
        ('f1', m.f1_at_score(matches), ('F1 by score at IoU 0.5', 'least score', 'F1')),
    ):
        titles = f'{words[0]}: {title}', *words[1:]
        _draw(folder / f'{prefix}{name}_curve.png', plots.draw_class_curves, names, m.GRID, curves, titles)
    values = {'AP': ap.mean(0), 'AP at IoU 0.5': ap[0]}
    _draw(folder / f'{prefix}per_class.png', plots.draw_bars, names, values, f'AP by class: {title}')
    table, heading = m.confusion_matrix(matches), f'Confusion at IoU 0.5 and score {m.SHOWN}: {title}'
    _draw(folder / f'{prefix}confusion_matrix.png', plots.draw_confusion, [*names, 'background'], table, heading)


def _draw(path: Path, draw: Any, *args: Any) -> None:
    with left_out_on_error(path.name):
        draw(path, *args)
