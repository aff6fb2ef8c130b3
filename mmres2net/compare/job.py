"""``mmres2net compare``: two or more runs, their differences with intervals, and a report.

``report.html`` is one static file without scripts and without anything from elsewhere.
"""

import io
import shlex
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from mmres2net.compare import figures
from mmres2net.compare.comparison import compare
from mmres2net.compare.cost import costs_of
from mmres2net.compare.differences import settings_of, starts_of
from mmres2net.compare.gallery import Example, Network, examples_of
from mmres2net.compare.result import CHECKPOINTS, Comparison, Difference, Estimate, Row, as_json
from mmres2net.compare.runs import evaluate, read_sides
from mmres2net.drawing import Array
from mmres2net.engine.results import write_rows
from mmres2net.errors import UserError
from mmres2net.files import writable_dir, write_atomic
from mmres2net.flags import parse
from mmres2net.text import format_table
from mmres2net.version import __version__

TEMPLATE, SIGNIFICANT = 'report.html.j2', 0.05


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the runs in ``argv``, print a table and write the report; a UserError if they cannot be compared."""
    args = parse('compare', argv)
    sources = read_sides(args.runs)
    folder = writable_dir(args.out or Path('work_dirs') / '-vs-'.join(sources), '--out')
    sides = evaluate(sources, args.data, unsafe=args.allow_unsafe_checkpoint)
    command = shlex.join(['mmres2net', 'compare', *(argv or ())])
    result = compare(sides, samples=args.samples, seed=args.seed, command=command)
    print(as_text(write(result, folder, cost=not args.no_cost)))
    print(f'the report: {folder / "report.html"}')


def write(result: Comparison, folder: Path, *, cost: bool = True) -> Comparison:
    """Write the report into ``folder``; return the comparison with settings, starting weights and costs.

    What cannot be made, such as the gallery of networks that do not load, is left out, and the page says why. With
    ``cost`` time and memory are measured.
    """
    networks, examples, missing = list[Network](), list[Example](), ''
    _write_tables(result, folder / 'tables')
    try:
        networks = [Network(side.runs[0]) for side in result.sides]
        examples = examples_of(result, networks)
    except UserError as error:
        missing = str(error)
    costs, note = costs_of(result.sides, networks if cost else ())
    if not networks or not cost:
        note = f'Time and memory were not measured: {missing if cost else "--no-cost"}. {note}'
    settings, starts = settings_of(result.sides), starts_of(result.sides)
    result = replace(result, settings=settings, starts=starts, costs=costs, cost_note=note)
    write_atomic(folder / 'report.json', as_json(result))
    write_atomic(folder / 'report.html', render(result, examples, missing))
    return result


def _write_tables(result: Comparison, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    names = [side.name for side in result.sides]

    def cells(row: Row) -> dict[str, Any]:
        values = dict(zip(names, row.sides, strict=True))
        values |= {f'{name} - {names[0]}': one for name, one in zip(names[1:], row.differences, strict=True)}
        found = {f'{name} {key}': value for name, one in values.items() for key, value in asdict(one).items()}
        return {'group': row.group, 'metric': row.name, **found}

    for title, rows in (('metrics', result.metrics), ('by_class', result.by_class), ('errors', result.errors)):
        if rows:
            write_rows(folder / f'{title}.csv', [cells(row) for row in rows])
    scores = zip(result.images.names, *result.images.scores, strict=True)
    write_rows(folder / 'images.csv', [dict(zip(['image', *names], one, strict=True)) for one in scores])


def as_text(result: Comparison) -> str:
    """Return banners, a table of the metrics, and what they speak of."""
    digits = 3 if result.task == 'saliency' else 1
    names = [side.name for side in result.sides]
    more = [title for name in names[1:] for title in (f'{name} - {names[0]}', '95 % interval', 'P(> 0)')]
    rows = []
    for row in result.metrics:
        rows.append([f'{row.group} {row.name}'.strip(), *(_number(side.value, digits) for side in row.sides)])
        for one in row.differences:
            interval = f'[{_number(one.low, digits, "+")}, {_number(one.high, digits, "+")}]'
            rows[-1] += [_number(one.value, digits, '+'), interval, _number(one.above, 3)]
    what = 'these checkpoints, not of their recipes' if result.level == CHECKPOINTS else 'these recipes'
    last = f'{len(result.images.names)} images, {result.samples} replicates, seed {result.seed}: this speaks of {what}'
    return '\n'.join([*(f'! {one}' for one in result.banners), format_table(rows, ['metric', *names, *more]), last])


def _number(value: float | None, digits: int, sign: str = '') -> str:
    return '-' if value is None else f'{value:{sign}.{digits}f}'


def render(result: Comparison, examples: Sequence[Example], missing: str = '') -> str:
    """Return the text of the page; ``missing`` says why there are no examples."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    digits = 3 if result.task == 'saliency' else 2

    def number(value: float | None, sign: str = '') -> str:
        return '' if value is None else _number(value, digits, sign).replace('-', '\N{MINUS SIGN}')

    def interval(one: Estimate) -> str:
        return '' if one.low is None else f'{number(one.low)} to {number(one.high)}'

    page.filters |= {'number': number, 'interval': interval, 'jpeg': _jpeg}
    page.tests |= {'shown': differs, 'significant': significant}
    template = page.from_string(files('mmres2net.compare').joinpath(TEMPLATE).read_text(encoding='utf-8'))
    used = dict.fromkeys(', '.join(map(' '.join, run.versions.items())) for side in result.sides for run in side.runs)
    facts = {'missing': missing, 'version': __version__, 'versions': list(used)}
    return template.render(result=result, plots=_plots(result), examples=examples, **facts)


def differs(one: Difference) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return one.low is not None and one.high is not None and not one.low <= 0 <= one.high


def significant(one: Difference) -> bool:
    """Whether a difference by class holds after the correction for their number."""
    return one.p is not None and one.p < SIGNIFICANT


def _plots(result: Comparison) -> dict[str, Any]:
    sides, groups = result.sides, dict.fromkeys(curve.group for curve in result.curves)
    return {
        'metrics': figures.difference_plot(result.metrics, sides, differs),
        'classes': figures.difference_plot(result.by_class, sides, significant),
        'errors': figures.difference_plot(result.errors, sides, differs),
        'curves': [figures.curve_plot([one for one in result.curves if one.group == group], sides) for group in groups],
        'calibration': figures.calibration_plot(result.calibration, sides),
        'confusions': [figures.confusion_plot(one, sides) for one in result.confusions],
        'cost': figures.cost_plot(result.costs, result.metrics[0], sides),
        'training': figures.training_plot(result),
    }


def _jpeg(image: Array) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'jpeg', quality=85)
    return f'data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}'
