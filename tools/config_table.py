#!/usr/bin/env python3
"""Write docs/configs.md and docs/results.md: `tools/config_table.py [--check] [--costs]`.

They are made from configs/metafile.yml and from the reports of comparisons, docs/compare_*.json.
"""

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmres2net.complexity import complexity_of, image_size
from mmres2net.engine.config import load_config
from mmres2net.paths import config_dir
from mmres2net.text import format_table

Meta = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
MIN_SEEDS = 3  # a pair is printed once each side has as many

GROUPS = {
    'ImageNet': ('imagenet/', 'paper script'),
    'CIFAR-10': ('cifar10/', 'paper short'),
    'CIFAR-100': ('cifar100/', 'paper'),
    'Faster R-CNN, as in the paper': ('faster_rcnn_', 'paper'),
    'Faster R-CNN, usual settings': ('faster_rcnn_', 'fair'),
    'Mask R-CNN, as in the paper': ('mask_rcnn_', 'paper'),
    'Mask R-CNN, usual settings': ('mask_rcnn_', 'fair'),
    'DeepLabv3+': ('deeplabv3plus_', 'paper'),
    'Salient object detection': ('dss_', 'paper'),
    'Demos': ('', 'demo'),
}
WRITTEN = '<!-- Written by tools/config_table.py from configs/metafile.yml and reports. Do not edit. -->\n'
CONFIGS_HEAD = f"""{WRITTEN}
# Configs

- **Published** is the value of the paper (with its table) or of the named library.
- **Here** says what was measured: `small` on small data, `full` at full size; empty: the tests run a training step and
  a test step. [results.md](results.md) has the values.
- **Params** are those of the whole model in millions. **MACs** are the multiply-adds of one test image in billions,
  with as many regions as the test settings let through.
- **Weights** are what training starts from. NC: the official Res2Net weights, CC BY-NC-SA 4.0, not for commercial use.
- Each Res2Net config differs from its baseline, named in its first line, in the architecture alone. Tests compare all
  other options and their defaults.
"""
RESULTS_HEAD = f"""{WRITTEN}
# Results

No recipe of the paper was trained at full size here, and no value below reproduces one of the paper. Published values
are in [configs.md](configs.md). All runs start from random weights (`--from-scratch`).

## Pairs

A Res2Net is printed beside its baseline only if both were trained with at least {MIN_SEEDS} seeds. One seed says
little: the DeepLabv3+ demo of an earlier version gave a mIoU of 80.9 and of 93.5 with two seeds.
[compare.md](compare.md) says how differences and their intervals are computed.
"""
SWEEP_HEAD = """
## Scale on CIFAR-10

Figure 4 along the scale, at equal parameters and multiply-adds: the accuracy of the last epoch on the held-out images.
"""


def read_meta() -> Meta:
    """Return the contents of the metafile."""
    return yaml.safe_load((config_dir() / 'metafile.yml').read_text())


def cost_of(name: str) -> dict[str, Any]:
    """Return millions of parameters, billions of multiply-adds of a test image (also the backbone's), and its size."""
    cfg = load_config(name)
    cost = complexity_of(cfg, image_size(cfg))
    decimals = 2 if cost.macs >= 1e8 else 4
    return {
        'params': round(cost.parameters / 1e6, 2),
        'backbone_params': round(cost.backbone_parameters / 1e6, 2),
        'macs': round(cost.macs / 1e9, decimals),
        'backbone_macs': round(cost.backbone_macs / 1e9, decimals),
        'size': '{}x{}'.format(*cost.size),
    }


def renew_costs(text: str) -> str:
    """Return the metafile's text with its cost lines counted again."""
    name, lines = '', []
    for line in text.splitlines():
        name = found[1] if (found := re.match(r'  (\S+\.py):$', line)) else name
        if line.startswith('    cost: '):
            line = '    cost: {' + ', '.join(f'{key}: {value}' for key, value in cost_of(name).items()) + '}'
        lines.append(line)
    return '\n'.join(lines) + '\n'


def weights_of(name: str) -> str:
    """Return what the backbone of a config starts from."""
    backbone = load_config(name).model.backbone
    init_cfg = backbone.get('backbone', backbone).get('init_cfg') or {}
    if not isinstance(init_cfg, dict) or 'checkpoint' not in init_cfg:
        return 'random'
    licence = ' (NC)' if init_cfg['type'] == 'mmres2net.Pretrained' else ''
    return init_cfg['checkpoint'].removeprefix('torchvision://') + licence


def number(metric: str, value: float) -> str:
    """Return a value with as many decimals as its sources print."""
    return f'{value:.2f}' if 'error' in metric else f'{value:.3f}' if value < 1 else f'{value:.1f}'


def target_text(target: Meta | None) -> str:
    """Return a published value as the table prints it: the first two metrics and where they are from."""
    if target is None:
        return ''
    values = ', '.join(f'{metric} {number(metric, value)}' for metric, value in list(target['metrics'].items())[:2])
    tables = target.get('tables', [])
    where = f'table{"s" * (len(tables) > 1)} {", ".join(map(str, tables))}' if tables else target['source']
    return f'{values} ({where})'


def runs_text(runs: list[Meta], metric: str) -> str:
    """Return the values of a metric over runs: one value, or the smallest and largest and how many."""
    values = [run[metric] for run in runs if metric in run]
    if len(values) == 1:
        return f'{metric} {number(metric, values[0])}'
    return f'{metric} {number(metric, min(values))} to {number(metric, max(values))} ({len(values)} runs)'


def measured_text(measured: Meta) -> str:
    """Return a measurement as the table prints it."""
    metrics = dict.fromkeys(key for run in measured['runs'] for key in run if key != 'seed')
    return '; '.join(runs_text(measured['runs'], metric) for metric in metrics)


def row_of(name: str, measured: Meta) -> list[str]:
    """Return the row of a measurement."""
    return [name, measured['data'], measured['schedule'], measured_text(measured), f'`{measured["command"]}`']


def group_of(name: str, entry: Meta) -> str:
    """Return the heading under which a config is listed."""
    return next(
        title for title, (start, recipes) in GROUPS.items() if name.startswith(start) and entry['recipe'] in recipes
    )


def configs_page(meta: Meta) -> str:
    """Return the text of docs/configs.md."""
    parts = [CONFIGS_HEAD]
    for title in GROUPS:
        group = {name: entry for name, entry in meta['configs'].items() if group_of(name, entry) == title}
        usual = Counter(entry['cost']['size'] for entry in group.values()).most_common(1)[0][0]
        rows = []
        for name, entry in group.items():
            cost = entry['cost']
            size = '' if cost['size'] == usual else f' ({cost["size"]})'
            link = f'[{name.removesuffix(".py")}](../configs/{name})'
            macs = f'{cost["macs"]:.{1 if cost["macs"] >= 0.1 else 4}f}{size}'
            here = '' if entry['status'] == 'steps' else f'[{entry["status"]}](results.md)'
            rows.append([link, target_text(entry.get('target')), here, f'{cost["params"]:.2f}', macs, weights_of(name)])
        table = format_table(rows, ['config', 'published', 'here', 'params (M)', 'MACs (G)', 'weights'], markdown=True)
        notes = [f'- `{name.removesuffix(".py")}`: {entry["note"]}' for name, entry in group.items() if 'note' in entry]
        parts.append(f'\n## {title}\n\nMultiply-adds of an image of {usual} pixels.\n\n{table}\n')
        if notes:
            parts.append('\n' + '\n'.join(notes) + '\n')
    return ''.join(parts)


def seeds_of(measured: Meta) -> int:
    """Return the number of different seeds of a measurement."""
    return len({run['seed'] for run in measured['runs']})


def pairs_of(meta: Meta) -> Iterator[tuple[str, Meta, str, Meta]]:
    """Yield each Res2Net and its baseline, measured on the same data with enough seeds a side."""
    configs = meta['configs']
    for name, entry in configs.items():
        for ours in entry.get('measured', []):
            for theirs in configs.get(entry.get('baseline'), {}).get('measured', []):
                same = all(ours[key] == theirs[key] for key in ('data', 'schedule'))
                if same and min(seeds_of(ours), seeds_of(theirs)) >= MIN_SEEDS:
                    yield name, ours, entry['baseline'], theirs


def report_text(file: Path) -> str:
    """Return a comparison, a report.json, as a table: a row for each metric and each side after the first."""
    report = json.loads(file.read_text())
    first, *others = [side['name'] for side in report['sides']]
    metrics = [row for row in report['metrics'] if all(one['value'] is not None for one in row['differences'])]
    rows = []
    for row in metrics:
        for name, side, one in zip(others, row['sides'][1:], row['differences'], strict=True):
            form = decimals_of(row)
            values = [f'{row["sides"][0]["value"]:{form}}', f'{side["value"]:{form}}', f'{one["value"]:+{form}}']
            label = f'{row["group"]} {row["name"]}'.strip() + f', {name}' * (len(others) > 1)
            rows.append([label, *values, f'{one["low"]:{form}} to {one["high"]:{form}}', f'{one["above"]:.3f}'])
    head = ['metric', first, others[0] if len(others) == 1 else 'other', 'difference', '95 % interval', 'P(> 0)']
    seeds = ', '.join(f'{side["name"]} {len(side["runs"])}' for side in report['sides'])
    images = report['images'].get('count') or len(report['images']['names'])  # a long list is not kept in docs
    runs = f'Seeds: {seeds}; {images} images, {report["samples"]} replicates.'
    files = ', '.join(side['runs'][0]['config_file'] for side in report['sides'])
    title = f'### {first} and {", ".join(others)}: {report["task"]} ({files})'
    verdict = ' '.join(
        verdict_text(name, metrics[0], one) for name, one in zip(others, metrics[0]['differences'], strict=True)
    )
    table = format_table(rows, head, markdown=True)
    return f'\n{title}\n\n{verdict}\n\n`{report["command"]}` ([{file.name}]({file.name})). {runs}\n\n{table}\n'


def decimals_of(row: Meta) -> str:
    """Return the format of a metric's values: in percent, or in fractions of 1 as those of saliency."""
    return '.1f' if max(side['value'] for side in row['sides']) > 1 else '.3f'


def verdict_text(name: str, row: Meta, one: Meta) -> str:
    """Return whether a side differs in the main metric and, if that cannot be told, what it would take."""
    form = decimals_of(row)
    what = f'{name}: {one["value"]:+{form}} {row["name"]}, from {one["low"]:{form}} to {one["high"]:{form}}'
    if one['low'] > 0 or one['high'] < 0:
        return f'{what}; a difference is shown.'
    times = ((one['high'] - one['low']) / 2 / one['value']) ** 2 if one['value'] else math.inf
    need = f'about {times:.0f} times as many images and seeds' if 1.5 < times < 100 else 'more images and seeds'
    return f'{what}; no difference is shown. To tell one of this size would take {need}.'


def sweep_text(file: Path) -> str:
    """Return the points of a sweep, the JSON beside its figure, as a table."""
    rows = [
        [row['axis'], str(row[row['axis']]), str(row['width']), f'{row["parameters"] / 1e6:.3f}', str(row['seeds']),
         f'{row["top1"]:.2f}', '' if row['std'] is None else f'{row["std"]:.2f}']
        for row in json.loads(file.read_text())
    ]  # fmt: skip
    head = ['axis', 'value', 'width', 'parameters (M)', 'seeds', 'top-1 (%)', 'std']
    image = file.with_suffix('.png').name
    return f'\n![Accuracy by scale]({image})\n\n{format_table(rows, head, markdown=True)}\n'


def results_page(meta: Meta, docs: Path = ROOT / 'docs') -> str:
    """Return the text of docs/results.md; the reports are in ``docs``."""
    head = ['config', 'data', 'training', 'result', 'command']
    pairs, shown = [], set()
    for name, ours, baseline, theirs in pairs_of(meta):
        shown |= {id(ours), id(theirs)}
        for config, measured in ((name, ours), (baseline, theirs)):
            pairs.append(row_of(config, measured))
    measured_baselines = {entry.get('baseline') for entry in meta['configs'].values() if 'measured' in entry}
    singles = []
    for name, entry in meta['configs'].items():
        for measured in entry.get('measured', []):
            # A single run of a network is not printed beside one of its counterpart.
            if id(measured) not in shown and name not in measured_baselines:
                singles.append(row_of(name, measured))
    machines = sorted({m['machine'] for e in meta['configs'].values() for m in e.get('measured', [])})
    return (
        RESULTS_HEAD
        + ('\n' + format_table(pairs, head, markdown=True) + '\n' if pairs else '')
        + ''.join(report_text(file) for file in sorted(docs.glob('compare_*.json')))
        + ''.join(SWEEP_HEAD + sweep_text(file) for file in sorted(docs.glob('sweep_*.json')))
        + f'\n## Runs that show that a recipe learns\n\nMachine: {", ".join(machines)}.\n\n'
        + format_table(singles, head, markdown=True)
        + '\n'
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the pages; return 1 where ``--check`` finds one that differs."""
    flags = argparse.ArgumentParser(prog='config_table.py', description=__doc__)
    flags.add_argument('--check', action='store_true', help='compare with the files instead of writing them')
    flags.add_argument('--costs', action='store_true', help='count parameters and multiply-adds again first')
    flags.add_argument('--docs', type=Path, default=ROOT / 'docs', help='folder of the pages')
    args = flags.parse_args(argv)
    file = config_dir() / 'metafile.yml'
    if args.costs:
        costs = renew_costs(file.read_text())
        if args.check and costs != file.read_text():
            print(f'{file} has other costs than its models: run tools/config_table.py --costs', file=sys.stderr)
            return 1
        if not args.check:
            file.write_text(costs)
    meta = read_meta()
    status = 0
    for name, text in {'configs.md': configs_page(meta), 'results.md': results_page(meta, args.docs)}.items():
        page = args.docs / name
        if not args.check:
            page.write_text(text)
        elif not page.is_file() or page.read_text() != text:
            print(f'{page} differs from its sources: run tools/config_table.py', file=sys.stderr)
            status = 1
    return status


if __name__ == '__main__':
    sys.exit(main())
