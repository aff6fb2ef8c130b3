"""``mmres2net compare``: two or more runs, their differences with intervals, and a report."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmres2net.compare import page
from mmres2net.compare.comparison import compare
from mmres2net.compare.result import CHECKPOINTS, Comparison, Estimate, Row
from mmres2net.compare.runs import read_sides, tested
from mmres2net.engine.result_plots import write_rows
from mmres2net.files import writable_dir
from mmres2net.flags import parse
from mmres2net.text import format_table


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the runs in ``argv``, print a table and write the report.

    Raises:
        UserError: A run cannot be tested, or runs cannot be compared.
    """
    args = parse('compare', argv)
    sources = read_sides(args.runs)
    folder = writable_dir(args.out or Path('work_dirs') / '-vs-'.join(sources), '--out')
    unsafe = args.allow_unsafe_checkpoint
    sides = {name: [tested(one, args.data, unsafe=unsafe) for one in runs] for name, runs in sources.items()}
    command = shlex.join(['mmres2net', 'compare', *(argv or ())])
    result = compare(sides, samples=args.samples, seed=args.seed, command=command)
    write_tables(result, folder / 'tables')
    result = page.write(result, folder, cost=not args.no_cost)
    print(as_text(result))
    print(f'the report: {folder / "report.html"}')


def write_tables(result: Comparison, folder: Path) -> None:
    """Write the rows and the scores of the images as CSV files."""
    folder.mkdir(exist_ok=True)
    names = [side.name for side in result.sides]
    for title, rows in (('metrics', result.metrics), ('by_class', result.by_class), ('errors', result.errors)):
        if rows:
            write_rows(folder / f'{title}.csv', [_cells(row, names) for row in rows])
    scores = zip(result.images.names, *result.images.scores, strict=True)
    write_rows(folder / 'images.csv', [dict(zip(['image', *names], one, strict=True)) for one in scores])


def _cells(row: Row, names: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {'group': row.group, 'metric': row.name}
    for name, side in zip(names, row.sides, strict=True):
        cells |= {f'{name}': side.value, f'{name} low': side.low, f'{name} high': side.high}
    for name, one in zip(names[1:], row.differences, strict=True):
        values = {
            '': one.value,
            ' low': one.low,
            ' high': one.high,
            ' above 0': one.above,
            ' bias': one.bias,
            ' p': one.p,
        }
        cells |= {f'{name} - {names[0]}{key}': value for key, value in values.items()}
        cells[f'{name} - {names[0]} published'] = one.paper
    return cells


def as_text(result: Comparison) -> str:
    """Return banners, a table of the metrics, and what they speak of."""
    digits = 3 if result.task == 'saliency' else 1
    names = [side.name for side in result.sides]
    header = ['metric', *names]
    for name in names[1:]:
        header += [f'{name} - {names[0]}', '95 % interval', 'P(> 0)']
    rows = []
    for row in result.metrics:
        cells = [' '.join(filter(None, (row.group, row.name))), *(_number(side.value, digits) for side in row.sides)]
        for one in row.differences:
            cells += [_number(one.value, digits, '+'), _interval(one, digits), _number(one.above, 3)]
        rows.append(cells)
    what = 'these checkpoints, not of their recipes' if result.level == CHECKPOINTS else 'these recipes'
    last = f'{len(result.images.names)} images, {result.samples} replicates, seed {result.seed}: this speaks of {what}'
    return '\n'.join([*(f'! {banner}' for banner in result.banners), format_table(rows, header), last])


def _number(value: float | None, digits: int, sign: str = '') -> str:
    return '-' if value is None else f'{value:{sign}.{digits}f}'


def _interval(one: Estimate, digits: int) -> str:
    return '-' if one.low is None else f'[{_number(one.low, digits, "+")}, {_number(one.high, digits, "+")}]'
