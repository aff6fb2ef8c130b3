"""Results as a page: a table for each result, ratios with bootstrap intervals, and a plot."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.errors import UserError
from mmres2net.files import write_atomic
from mmres2net.plots import PALETTE, save
from mmres2net.text import format_table

BEGIN, END = '<!-- results: begin -->', '<!-- results: end -->'
HEADER = ('contender', 'ms', 'ratio', '95 % interval', 'largest difference')
SAMPLES, LEVEL = 2000, 0.95


def interval(seconds: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of the medians of two contenders' turns, and the bounds of its bootstrap interval.

    Turns are resampled in pairs: both contenders ran under the same load.
    """
    pair = np.array([seconds, base])
    picks = np.random.default_rng(0).integers(0, pair.shape[1], (SAMPLES, pair.shape[1]))
    medians = np.median(pair[:, picks], axis=2)
    low, high = np.quantile(medians[0] / medians[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.median(pair[0]) / np.median(pair[1])), float(low), float(high)


def measured(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contenders with all turns, each with its ``ratio`` to the first of them."""
    turns = result['limits']['turns']
    rows = [row for row in result['contenders'] if len(row.get('seconds', ())) == turns and 'absent' not in row]
    return [{**row, 'ratio': interval(row['seconds'], rows[0]['seconds'])} for row in rows]


def table(result: dict[str, Any]) -> str:
    """Return the contenders of a result as a table."""
    if 'waiting' in result:
        rows = [(what, f'{value:,.2f}', unit) for what, value, unit in result['waiting']]
        return format_table(rows, ('what', 'value', 'unit'), markdown=True)
    lines = []
    for row in measured(result):
        ratio, low, high = row['ratio']
        worst = f'{row["difference"]:.0e}' if 'difference' in row else ''
        time = f'{np.median(row["seconds"]) * 1000:,.1f}'
        lines.append((row['name'], time, f'{ratio:.2f}', f'{low:.2f} to {high:.2f}', worst))
    lines += [(row['name'], row['absent'], *[''] * 3) for row in result['contenders'] if 'absent' in row]
    return format_table(lines, HEADER, markdown=True)


def section(result: dict[str, Any], plot: str) -> str:
    """Return the section of one result."""
    case, limits, machine = result['case'], result['limits'], result['machine']
    config = f' --config {case["config"]}' if case['suite'] in ('step', 'image') else ''
    size = 'x'.join(map(str, case['size']))
    command = f'python -m benchmarks run {case["suite"]} --size {size} --batch {case["batch"]}{config}'
    precision = case.get('precision', 'fp32')
    command += '' if precision == 'fp32' else f' --precision {precision}'
    command += f' --device {case["device"]} --threads {case["threads"]} --turns {limits["turns"]}'
    command = result.get('command', command)
    versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
    place = f'{machine.get("gpu", machine["cpu"])}, {machine["cores"]:g} cores, Python {machine["python"]}'
    if ceilings := machine.get('ceilings'):
        place += ''.join(f', {value:,.1f} {unit}' for unit, value in ceilings.items())
    load = f'{result["load"][0]:.1f} before, {result["load"][1]:.1f} after'
    busy = ' (--allow-load: the machine was busy)' if result['allow_load'] else ''
    image = f'\n\n![{case["title"]}]({plot})' if plot else ''
    return (
        f'#### {case["title"]}\n\n{table(result)}\n\n'
        f'- Command: `{command}`, {result["date"]}, mmres2net {result["version"]}\n'
        f'- Machine: {place}; load {load}{busy}\n- Versions: {versions}{image}'
    )


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw the ratios as bars with their intervals; the numbers stand at the bars' base."""
    rows = measured(result)[::-1]

    def bars(figure: Any) -> None:
        axes = figure.subplots()
        for i, row in enumerate(rows):
            ratio, low, high = row['ratio']
            errors = [[max(ratio - low, 0)], [max(high - ratio, 0)]]
            axes.barh(i, ratio, xerr=errors, color=PALETTE[1] if row['ours'] else PALETTE[-1], capsize=2)
            axes.text(0.01, i, f'{ratio:.2f}', va='center', color='white', fontsize=8)
        axes.set_yticks(range(len(rows)), [row['name'] for row in rows], fontsize=8)
        axes.set_xlabel(f'time / {rows[-1]["name"]}' if rows else 'nothing was measured')
        axes.set_title(result['case']['title'], fontsize=9)

    save(file, bars, height=0.8 + 0.3 * len(rows))


def read(file: Path) -> dict[str, Any]:
    """Return the result in a file, or raise UserError where it is none."""
    try:
        result = json.loads(file.read_text(encoding='utf-8'))
        times = [value for row in result['contenders'] for value in row.get('seconds', ())]
        if not all(math.isfinite(value) and value > 0 for value in times):
            raise ValueError('a time is not a positive number')
        table(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f'{file} is no result of the benchmark: {type(error).__name__}: {error}') from error
    return result


def write_page(files: Sequence[Path], page: Path) -> None:
    """Write the sections of all results between the markers of ``page``, and a plot beside it for each."""
    results = {file: read(file) for file in files}
    head, begin, rest = page.read_text(encoding='utf-8').partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError(f'{page} must have the lines {BEGIN} and {END}, between which the results are written')
    plots = {file: f'benchmarks_{file.stem}.png' for file in files if results[file]['contenders']}
    for file, plot in plots.items():
        draw(results[file], page.with_name(plot))
    parts = [head + begin]
    for device, title in (('cpu', '### On a CPU'), ('cuda', '### On a GPU')):
        mine = [file for file, result in results.items() if result['case']['device'] == device]
        parts += [title, *(section(results[file], plots.get(file, '')) for file in mine)] if mine else []
    write_atomic(page, '\n\n'.join([*parts, end + tail]))
