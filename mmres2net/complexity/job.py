"""``mmres2net complexity``: what networks and configs cost, as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from mmres2net.complexity.count import Complexity, complexity_of, complexity_of_arch, image_size
from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.files import writable_file, write_atomic
from mmres2net.flags import parse
from mmres2net.models import ALIASES, ARCHS, find_arch
from mmres2net.paths import find_config
from mmres2net.text import format_table, parse_size

SIZES = {'res2net': (224, 224), 'dla': (224, 224), 'cifar': (32, 32)}
HEADER = ('', 'image', 'parameters (M)', 'multiply-adds (G)', 'activations (M)')
NOTE = """In brackets: the backbone. Multiply-adds: of all convolutions and matrix products for testing one image.
Activations: the elements of their outputs, as in pycls and fvcore. An architecture has a classifier of 1000 classes, or
100 if it is for CIFAR-100; a detector has as many regions as its test settings let through, and 100 masks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the networks named in ``argv`` cost; return 0. A UserError: a wrong name, size or model."""
    args = parse('complexity', argv)
    size = parse_size(args.size) if args.size else None
    for name in args.names:
        check_name(name)
    if args.json:
        writable_file(args.json, '--json')
    costs = {name: count(name, size) for name in args.names}
    print(f'{format_table([_row(*item) for item in costs.items()], HEADER)}\n\n{NOTE}')
    if args.json:
        rows = [{'name': name, 'kind': kind_of(name), **asdict(cost)} for name, cost in costs.items()]
        write_atomic(args.json, json.dumps(rows, indent=1) + '\n')
    return 0


def kind_of(name: str) -> str:
    """Return whether a name means an ``arch`` or a ``config``: an arch wins, since a config can be given as a path."""
    return 'arch' if name in ARCHS or name in ALIASES else 'config'


def check_name(name: str) -> None:
    """Raise a UserError with close matches if a name is neither an architecture nor a config."""
    try:
        if kind_of(name) == 'config':
            find_config(name)
    except FileNotFoundError as error:
        try:
            find_arch(name)
        except ValueError as unknown:
            raise UserError(f'{name!r} is neither an architecture nor a config: {unknown} {error}') from error


def count(name: str, size: tuple[int, int] | None) -> Complexity:
    """Return what an architecture or a config costs at ``size``, or at the size it is tested on."""
    if kind_of(name) == 'arch':
        return complexity_of_arch(name, size or SIZES[find_arch(name).family])
    cfg = load_config(name)
    return complexity_of(cfg, size or image_size(cfg))


def _row(name: str, cost: Complexity) -> tuple[str, ...]:
    return (
        name,
        f'{cost.size[0]}x{cost.size[1]}',
        f'{cost.parameters / 1e6:.2f} ({cost.backbone_parameters / 1e6:.2f})',
        f'{cost.macs / 1e9:.3f} ({cost.backbone_macs / 1e9:.3f})',
        f'{cost.activations / 1e6:.2f} ({cost.backbone_activations / 1e6:.2f})',
    )
