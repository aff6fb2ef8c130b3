"""The table of the shipped configs, written from the configs themselves: ``docs/configs.md``.

A config's docstring says its family, its published target, its schedule and its status; parameters and multiply-adds
are counted on its model. Nothing in the table is written by hand, and a test compares the file with what this makes.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmres2net.complexity import Complexity, complexity_of, image_size
from mmres2net.paths import config_dir, list_configs

GROUPS = {
    'ImageNet': r'imagenet/',
    'CIFAR-100': r'cifar100/',
    'Faster R-CNN': r'faster_rcnn_',
    'Mask R-CNN': r'mask_rcnn_',
    'DeepLabv3+': r'deeplabv3plus_',
    'Salient object detection': r'dss_',
    'Demos on the embedded data set': r'demo/',
}
HEAD = """# Configs

Written by `tools/config_table.py` from the configs' docstrings and models; do not edit it by hand.

- **Target** is the published figure for these settings, with its source. **Status** says what was run here.
- **Params** are those of the whole model, in millions; in brackets the backbone's. **MACs** are the multiply-adds of
  all convolutions and matrix products in testing one image of the size given, in billions; in brackets the backbone's.
  A detector's hold for as many regions as its test settings let through, and for 100 masks.
- Each `r2n` config differs from the `r50` or `r101` config of its name in the backbone alone, each `res2ne(x)t` config
  from its ResNet, ResNeXt, SENet or DLA, which its first line names; tests hold that.
"""


def fields_of(text: str) -> dict[str, str]:
    """Return the ``Name: value`` paragraphs of a config's docstring, each on one line, and its first line as ``title``.

    Args:
        text: The source of a config.
    """
    docstring = ast.get_docstring(ast.parse(text)) or ''
    title, _, body = docstring.partition('\n\n')
    found = re.findall(r'^([A-Z]\w+): (.*(?:\n(?![A-Z]\w+: |\n).+)*)', body, re.MULTILINE)
    return {'title': ' '.join(title.split()), **{name: ' '.join(value.split()) for name, value in found}}


def row_of(name: str) -> str:
    """Return a config's row of the table."""
    path = config_dir() / name
    fields = fields_of(path.read_text())
    cfg = Config.fromfile(path)
    cost = complexity_of(cfg, image_size(cfg))
    cells = [fields[key].rstrip('.') for key in ('Family', 'Target', 'Status')]
    cells[0] = cells[0].split(' ')[0]
    return ' | '.join([f'| [{name.removesuffix(".py")}](../configs/{name})', *cells, _cost(cost), ''])[:-1]


def _cost(cost: Complexity) -> str:
    params = f'{cost.parameters / 1e6:.2f} ({cost.backbone_parameters / 1e6:.2f})'
    macs = f'{cost.macs / 1e9:.1f} ({cost.backbone_macs / 1e9:.1f})'
    return f'{params} | {macs} | {cost.size[0]}x{cost.size[1]}'


def table() -> str:
    """Return the text of ``docs/configs.md``."""
    names = list_configs()
    parts = [HEAD]
    for title, pattern in GROUPS.items():
        parts.append(f'\n## {title}\n\n| config | family | target | status | params (M) | MACs (G) | image |')
        parts.append('| --- ' * 7 + '|')
        parts += [row_of(name) for name in names if re.match(pattern, name)]
    return '\n'.join(parts) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table, or compare it with the file; return 1 where ``--check`` finds them different."""
    flags = argparse.ArgumentParser(prog='config_table.py', description='Write the table of the configs.')
    flags.add_argument('file', type=Path, help='the file to write, docs/configs.md')
    flags.add_argument('--check', action='store_true', help='compare instead of writing')
    args = flags.parse_args(argv)
    text = table()
    if not args.check:
        args.file.parent.mkdir(parents=True, exist_ok=True)
        args.file.write_text(text)
        return 0
    if args.file.is_file() and args.file.read_text() == text:
        return 0
    print(f'{args.file} is not what the configs say: run tools/config_table.py {args.file}', file=sys.stderr)
    return 1
