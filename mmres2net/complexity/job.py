"""``mmres2net complexity``: what networks and configs cost, as a table and as JSON."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmres2net.complexity.count import Complexity, complexity_of, complexity_of_arch
from mmres2net.complexity.size import image_size
from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.models import ALIASES, ARCHS, find_arch
from mmres2net.paths import find_config

SIZES = {'res2net': (224, 224), 'dla': (224, 224), 'cifar': (32, 32)}
HEADS = ('image', 'parameters (M)', 'multiply-adds (G)', 'activations (M)')
NOTE = """In brackets: the backbone alone. Multiply-adds: of all convolutions and matrix products in testing one image.
Activations: the elements of their outputs, as pycls and fvcore count them. An arch has a classifier of 1000 classes, or
of 100 if it is for CIFAR-100; a detector as many regions as its test settings let through, and 100 masks."""


def parser(prog: str = 'mmres2net complexity') -> argparse.ArgumentParser:
    """Return the flags of the count."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Count parameters, multiply-adds and activations, from shapes alone.',
        epilog='exit status: 0, or 2 where something cannot be counted',
    )
    flags.add_argument(
        'what', nargs='+', metavar='ARCH_OR_CONFIG', help='an arch such as res2net50_26w_4s, a config, or HOST::NAME'
    )
    flags.add_argument('--size', metavar='HxW', help='of the image; default: as in testing (arch: 224x224, or 32x32)')
    flags.add_argument('--json', metavar='FILE', help='write the exact numbers to this file')
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the networks named in ``argv`` cost; return 0.

    Raises:
        UserError: An unknown name, a bad size, or a model that cannot be counted.
    """
    args = parser().parse_args(argv)
    size = size_of(args.size)
    if args.json and (Path(args.json).is_dir() or not Path(args.json).absolute().parent.is_dir()):
        raise UserError(f'--json {args.json}: not a file in a folder that exists')
    for name in args.what:
        check_name(name)
    found = {name: count(name, size) for name in args.what}
    print(f'{table(found)}\n\n{NOTE}')
    if args.json:
        rows = [{'name': name, 'kind': kind_of(name), **asdict(cost)} for name, cost in found.items()]
        Path(args.json).write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    return 0


def size_of(text: str | None) -> tuple[int, int] | None:
    """Return height and width in ``HxW``; None for None.

    Raises:
        UserError: It is no such text.
    """
    if text is None:
        return None
    match = re.fullmatch(r'([1-9]\d*)[xX]([1-9]\d*)', text)
    if not match:
        raise UserError(f'--size {text}: give height and width in pixels, as 800x1216')
    return int(match[1]), int(match[2])


def kind_of(name: str) -> str:
    """Return whether a name means an ``arch`` or a ``config``: an arch wins, since a config may be given as a path."""
    return 'arch' if name in ARCHS or name in ALIASES else 'config'


def check_name(name: str) -> None:
    """Check that a name means something.

    Raises:
        UserError: It is neither an arch nor a config; the message has what comes close of both.
    """
    if kind_of(name) == 'arch':
        return
    try:
        find_config(name)
    except FileNotFoundError as error:
        near = difflib.get_close_matches(name, [*ARCHS, *ALIASES], n=5, cutoff=0.6)
        hint = f'close matches: {", ".join(near)}' if near else f'there are: {", ".join(ARCHS)}'
        raise UserError(f'{name!r} is no arch ({hint}), and no config either: {error}') from error


def count(name: str, size: tuple[int, int] | None) -> Complexity:
    """Return what an arch or a config costs at ``size``, or at the size it is tested on.

    Raises:
        UserError: The config cannot be read or its model not be counted.
    """
    if kind_of(name) == 'arch':
        return complexity_of_arch(name, size or SIZES[find_arch(name).family])
    cfg = load_config(name)
    if not cfg.get('model'):
        raise UserError(f'{name} has no model')
    return complexity_of(cfg, size or image_size(cfg))


def table(found: dict[str, Complexity]) -> str:
    """Return the costs by name as an aligned table."""
    rows = [('', *HEADS)]
    for name, cost in found.items():
        parameters = f'{cost.parameters / 1e6:.2f} ({cost.backbone_parameters / 1e6:.2f})'
        macs = f'{cost.macs / 1e9:.3f} ({cost.backbone_macs / 1e9:.3f})'
        activations = f'{cost.activations / 1e6:.2f} ({cost.backbone_activations / 1e6:.2f})'
        rows.append((name, f'{cost.size[0]}x{cost.size[1]}', parameters, macs, activations))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append('  '.join([first.ljust(widths[0]), *cells]))
    return '\n'.join(lines)
