"""How many images a second the training data come at, and where the time goes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmres2net.bench.common import Case, Measured, add_turn_flags, check_flags, closing, here, measure
from mmres2net.bench.figures import Column, bars, ratio_table
from mmres2net.bench.model import data_source
from mmres2net.bench.page import table
from mmres2net.bench.turns import Contender
from mmres2net.errors import UserError

SUMMARY = 'images a second of the training data loader, ours and the stock one, and where the time goes'
# Our configs and the hosts' with the same pipeline.
STOCK: Mapping[str, str] = {
    'faster_rcnn_r2n50': 'mmdet::faster-rcnn_r50_fpn_1x_coco',
    'mask_rcnn_r2n50': 'mmdet::mask-rcnn_r50_fpn_1x_coco',
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument('--config', default='faster_rcnn_r2n50', help='one of ' + ', '.join(STOCK))
    parser.add_argument('--data', metavar='DIR', help='real images in the standard layout; default: generated ones')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2], help='processes that load')
    parser.add_argument('--images', type=int, default=32, help='images a pass (default: %(default)s)')
    add_turn_flags(parser, repeats=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, time in turns, and return the figures with the ``text`` of the section.

    Raises:
        UserError: A flag or the data do not fit.
        MeasurementError: The loaders give other images, or ours failed.
    """
    name = _checked(args)
    place = here()
    with tempfile.TemporaryDirectory() as folder:
        shared = {**data_source(args, folder), 'images': args.images}
        found = [measure(case_of(name, workers, shared), args, Path(folder)) for workers in args.workers]
    return {
        'section': f'loading-{name}',
        'machine': place,
        'cases': [one.json() for one in found],
        'panels': [bars(one.case.title, one.case.contenders, one.summaries) for one in found],
        'label': 'time of a pass / stock',
        'text': _text(name, args, found, place),
    }


def _checked(args: argparse.Namespace) -> str:
    check_flags(args)
    name = Path(args.config).name.removesuffix('.py')
    if name not in STOCK:
        raise UserError(f'--config {args.config}: choose from {", ".join(STOCK)}; others have no stock loader to meet')
    if args.images < 1 or min(args.workers) < 0:
        raise UserError('--images: choose 1 or more; --workers: 0 or more')
    return name


def case_of(name: str, workers: int, shared: Mapping[str, Any]) -> Case:
    """Return the loaders with so many worker processes."""
    rows = {'stock': STOCK[name], 'ours': name}
    contenders = [
        Contender(
            who,
            'mmres2net.bench.pipes:Loading',
            {**shared, 'config': config, 'workers': workers},
            'stock',
            'stock' if who == 'ours' else None,
            ours=who == 'ours',
            note=config,
        )
        for who, config in rows.items()
    ]
    title = f'{name}: {workers} {"worker" if workers == 1 else "workers"}'
    return Case(title, contenders, bounds={'image': 0.0})


def _text(name: str, args: argparse.Namespace, found: Sequence[Measured], place: str) -> str:
    images = f'images of {Path(args.data).name}' if args.data else 'generated images'
    head = f"""## Loading of {name}

A pass over {args.images} {images} in the pipeline, order and batches of the config, with workers that are already
there. Before anything is timed, the first images are compared, to the bit."""
    return '\n\n'.join([head, *(_case_text(one) for one in found), _parts_text(found[0]), closing(args, place)])


def _case_text(one: Measured) -> str:
    speeds = {name: one.facts[name]['images'] / each.seconds for name, each in one.summaries.items()}
    columns = [Column('images a second', {name: f'{speed:.1f}' for name, speed in speeds.items()})]
    return f'### {one.case.title}\n\n{ratio_table(one.case.contenders, one.summaries, one.absent, columns)}'


def _parts_text(one: Measured) -> str:
    """Return a table of the parts of the pipeline."""
    parts = {name: one.facts[name]['parts'] for name in one.summaries}
    names = list(dict.fromkeys(part for each in parts.values() for part in each))
    rows = [[part, *(f'{each[part]:.2f}' if part in each else '' for each in parts.values())] for part in names]
    totals = ['together', *(f'{sum(each.values()):.2f}' for each in parts.values())]
    head = ['milliseconds an image, without workers', *parts]
    return f'### {one.case.title.split(":")[0]}: where the time goes\n\n{table(head, [*rows, totals])}'
