"""How long a training step of a backbone takes, and how much memory: ours and its peers."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmres2net.bench.common import (
    ARCH,
    JOBS,
    Case,
    Measured,
    add_turn_flags,
    ceiling_contenders,
    check_flags,
    closing,
    here,
    measure,
    pair_table,
    parse_size,
    section_name,
)
from mmres2net.bench.device import DEVICES, DTYPES, check_device, device_name
from mmres2net.bench.figures import Column, bars, ratio_table
from mmres2net.bench.turns import Contender, say
from mmres2net.errors import UserError

SUMMARY = "time and memory of a backbone's training step: ours, timm's and the hosts'"
# Where rounding turns a ReLU or the maximum of a pool the other way, a gradient changes by up to a percent.
BOUNDS = {'fp32': {'loss': 1e-4, 'gradient': 5e-2}, 'bf16': {'loss': 5e-2, 'gradient': 1.0}}
BOUNDS['fp16'] = BOUNDS['bf16']
# Norms on the batch hand such a turn on to all pixels: mmdet's own fp32 is up to 6 percent away from its float64.
LIVE_FACTOR = 4
NORMS = {'frozen': [False], 'live': [True], 'both': [False, True]}
BASE = 'timm'
BEST = 'ours, optimized, memory kept'
MMDET = "ours, mmdet's network, optimized, memory kept"


@dataclass(frozen=True)
class Row:
    """A contender, as data.

    Args:
        name: As in the table.
        source: Whose network; see :mod:`mmres2net.bench.networks`.
        kind: Which network.
        channels_last: Whether network and images have this memory format.
        fast: Is sped up by :func:`mmres2net.deploy.optimize`, as the project's tools do on a CPU.
        keep_memory: Runs with :func:`mmres2net.malloc.keep_freed_memory`.
        note: Said behind the name.
    """

    name: str
    source: str
    kind: str = 'arch'
    channels_last: bool = False
    fast: bool = False
    keep_memory: bool = False
    note: str = ''


ROWS = (
    Row(BASE, 'timm'),
    Row('timm, memory kept', 'timm', keep_memory=True),
    Row('timm, channels last', 'timm', channels_last=True),
    Row('timm, channels last, memory kept', 'timm', channels_last=True, keep_memory=True),
    Row('mmpretrain', 'mmpretrain'),
    Row('mmdet', 'mmdet', 'mmdet', note='another function'),
    Row('ours, contiguous', 'ours'),
    Row('ours, channels last', 'ours', channels_last=True),
    Row('ours, optimized', 'ours', channels_last=True, fast=True),
    Row(BEST, 'ours', channels_last=True, fast=True, keep_memory=True),
    Row(MMDET, 'ours', 'mmdet', channels_last=True, fast=True, keep_memory=True),
)
PAIRS = (
    (BEST, 'timm, memory kept'),
    (BEST, 'timm, channels last, memory kept'),
    ('ours, optimized', 'timm, channels last'),
    ('ours, optimized', 'ours, channels last'),
    (MMDET, 'mmdet'),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument('--arch', default=ARCH, help='the network (default: %(default)s)')
    parser.add_argument('--sizes', nargs='+', default=['320x320', '512x512'], metavar='HxW', help='sizes of images')
    parser.add_argument('--batch', type=int, default=2, help='images a step (default: %(default)s)')
    parser.add_argument(
        '--norm',
        choices=list(NORMS),
        default='both',
        help='norms on their running statistics, as in detection, or on those of the batch (default: %(default)s)',
    )
    parser.add_argument('--device', choices=DEVICES, default='cpu')
    parser.add_argument('--dtype', choices=list(DTYPES), default='fp32', help='type of numbers (default: %(default)s)')
    add_turn_flags(parser, repeats=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, time in turns, and return the figures with the ``text`` of the section.

    Raises:
        UserError: A flag does not fit.
        MeasurementError: Contenders disagree, or one of ours failed.
    """
    sizes = _checked(args)
    place = here()
    ceiling = ceiling_contenders(args.device, args.dtype)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for live in NORMS[args.norm]:
                case = case_of(args, (args.batch, 3, *size), live)
                found.append(measure(case, args, Path(folder), ceiling))
                say(_case_text(found[-1]))  # a fault in a later case loses nothing
    return {
        'section': section_name('training', args),
        'machine': place,
        'device': device_name(args.device),
        'cases': [one.json() for one in found],
        'panels': [bars(one.case.title, one.case.contenders, one.summaries) for one in found],
        'label': f'time of a step / {BASE}',
        'text': _text(args, found, place),
    }


def _checked(args: argparse.Namespace) -> list[tuple[int, int]]:
    from mmres2net.bench.networks import families
    from mmres2net.models import ALIASES

    check_flags(args)
    check_device(args.device, args.dtype)
    if args.batch < 2:
        raise UserError('--batch: choose 2 or more; norms on the batch need more than one value')
    if ALIASES.get(args.arch, args.arch) not in families():
        raise UserError(f'--arch {args.arch}: choose from {", ".join(families())}')
    return [parse_size(text, '--sizes') for text in args.sizes]


def case_of(args: argparse.Namespace, shape: Sequence[int], live: bool) -> Case:
    """Return the contenders for images of ``shape`` (N, 3, H, W)."""
    shared = {'arch': args.arch, 'shape': list(shape), 'live': live}
    here = {'device': args.device, 'dtype': args.dtype}
    contenders = [
        Contender(
            row.name,
            f'{JOBS}:Training',
            {
                'source': row.source,
                'kind': row.kind,
                **shared,
                **here,
                'channels_last': row.channels_last,
                'fast': row.fast,
            },
            BASE,
            row.kind,
            row.keep_memory,
            ours=row.source == 'ours',
            note=row.note,
        )
        for row in ROWS
        if args.device == 'cpu' or not row.keep_memory
    ]
    references = {
        kind: Contender(
            f'{kind} in float64', f'{JOBS}:Reference', {'job': 'Training', 'kind': kind, 'options': shared}
        )
        for kind in ('arch', 'mmdet')
    }  # fmt: skip
    norms = 'norms on the batch' if live else 'norms on running statistics'
    title = f'{args.arch}, {"x".join(map(str, shape))}, {norms}'
    bounds = BOUNDS[args.dtype]
    if live:
        bounds = {**bounds, 'gradient': LIVE_FACTOR * bounds['gradient']}
    return Case(title, contenders, references, bounds)


def _operations(one: Measured) -> Mapping[str, int]:
    return {
        each.name: one.facts[each.same_as or '']['operations']
        for each in one.case.contenders
        if each.name in one.summaries
    }


def _text(args: argparse.Namespace, found: Sequence[Measured], place: str) -> str:
    device = device_name(args.device)
    unusual = '' if (args.device, args.dtype) == ('cpu', 'fp32') else f', {args.device} {args.dtype}'
    return '\n\n'.join([
        f"""## Training step of {args.arch}{unusual}

A step is the forward pass, the mean of all outputs and the backward pass, without an optimizer. All networks of a kind
have the same seeded weights and get the same images. Before anything is timed, a loss and a few of its gradients
are compared with those in float64. mmdet's Res2Net is another network, compared with ours under `stage_pool='mmdet'`.
**Optimized** is channels last with `mmres2net.deploy.optimize`, which `train` applies on a CPU by itself.
**Peak** is the most memory held beyond what the process held before its first step: activations, gradients, the
workspace of the convolutions, and where memory is kept, what is kept ahead.""",
        *(_case_text(one) for one in found),
        closing(args, f'{place}; {device}' if device else place) + f'\n- Numbers: {args.dtype}',
    ])  # fmt: skip


def _case_text(one: Measured) -> str:
    peaks = {name: each.peak_mib for name, each in one.summaries.items()}
    columns = [
        Column('peak, MiB', {name: f'{peak:,.0f}' for name, peak in peaks.items()}),
        *one.ceiling_columns(_operations(one)),
        one.difference_column(),
    ]
    if peaks.get(BASE):
        columns.insert(1, Column('peak, ratio', {name: f'{peak / peaks[BASE]:.2f}' for name, peak in peaks.items()}))
    parts = [
        f'### {one.case.title}',
        ratio_table(one.case.contenders, one.summaries, one.absent, columns),
        pair_table(PAIRS, one.runs),
        one.ceiling_text(),
    ]
    return '\n\n'.join(part for part in parts if part)
