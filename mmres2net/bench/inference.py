"""How long a backbone takes for an image: ours and its peers, in torch and in runtimes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from mmres2net.bench.turns import Contender
from mmres2net.errors import UserError

SUMMARY = "time of a backbone's inference: ours and timm's, the hosts', ResNet-50, ONNX Runtime, OpenVINO"
BOUNDS = {'fp32': 1e-4, 'bf16': 5e-2, 'fp16': 5e-2}
RUNTIMES = 'mmres2net.bench.runtimes'
BASE = 'timm, eager'
BEST = 'ours, optimized, memory kept'


@dataclass(frozen=True)
class Row:
    """A contender, as data.

    Args:
        name: As in the table.
        source: Whose network; see :mod:`mmres2net.bench.networks`.
        kind: Which network.
        mode: How torch runs it; see :data:`mmres2net.bench.jobs.MODES`.
        runtime: The class of :mod:`mmres2net.bench.runtimes` that runs it instead of torch.
        channels_last: Whether network and images have this memory format from the start.
        keep_memory: Runs with :func:`mmres2net.malloc.keep_freed_memory`.
        devices: Where it makes sense.
        on_demand: Only with ``--compile``.
        note: Said behind the name.
    """

    name: str
    source: str
    kind: str = 'arch'
    mode: str = 'eager'
    runtime: str | None = None
    channels_last: bool = False
    keep_memory: bool = False
    devices: Sequence[str] = DEVICES
    on_demand: bool = False
    note: str = ''


CPU, CUDA = ('cpu',), ('cuda',)
ROWS = (
    Row(BASE, 'timm'),
    Row('timm, eager, channels last', 'timm', channels_last=True),
    Row('timm, eager, memory kept', 'timm', keep_memory=True, devices=CPU),
    Row('timm, torch.compile', 'timm', mode='compiled', on_demand=True),
    Row('timm, CUDA graph, channels last', 'timm', mode='graph', channels_last=True, devices=CUDA),
    Row('mmpretrain, eager', 'mmpretrain'),
    Row('mmdet, eager', 'mmdet', 'mmdet', note='another function'),
    Row('ours, eager', 'ours'),
    Row('ours, eager, channels last', 'ours', channels_last=True),
    Row('ours, optimized', 'ours', mode='optimized'),
    Row(BEST, 'ours', mode='optimized', keep_memory=True, devices=CPU),
    Row('ours, torch.compile', 'ours', mode='compiled', on_demand=True),
    Row('ours, optimized, CUDA graph', 'ours', mode='optimized graph', channels_last=True, devices=CUDA),
    Row("ours, mmdet's network, optimized, memory kept", 'ours', 'mmdet', 'optimized', keep_memory=True, devices=CPU),
    Row("timm's export, ONNX Runtime", 'timm', runtime='OnnxRuntime'),
    Row('our export, ONNX Runtime', 'ours', runtime='OnnxRuntime'),
    Row("timm's export, OpenVINO", 'timm', runtime='OpenVino', devices=CPU),
    Row('our export, OpenVINO', 'ours', runtime='OpenVino', devices=CPU),
    Row('ResNet-50: timm, eager', 'timm', 'resnet50'),
    Row('ResNet-50: ours, optimized', 'ours', 'resnet50', 'optimized', devices=CUDA),
    Row('ResNet-50: ours, optimized, memory kept', 'ours', 'resnet50', 'optimized', keep_memory=True, devices=CPU),
)
# Like with like, beside the ratios to timm's eager network.
PAIRS = (
    (BEST, 'timm, eager, memory kept'),
    (BEST, 'timm, eager, channels last'),
    (BEST, 'timm, torch.compile'),
    ("ours, mmdet's network, optimized, memory kept", 'mmdet, eager'),
    ('our export, ONNX Runtime', "timm's export, ONNX Runtime"),
    ('our export, OpenVINO', "timm's export, OpenVINO"),
    (BASE, 'ResNet-50: timm, eager'),
    (BEST, 'ResNet-50: ours, optimized, memory kept'),
    ('ours, optimized', 'ResNet-50: ours, optimized'),
    ('ours, optimized, CUDA graph', 'timm, CUDA graph, channels last'),
)
# Table 3 of the paper: milliseconds for an image of 224x224.
SCALES = {'res2net50_48w_2s': 148, 'res2net50_26w_4s': 153, 'res2net50_14w_8s': 172}
RESNET50_OF_TABLE_3 = 149


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument('--arch', default=ARCH, help='the network (default: %(default)s)')
    parser.add_argument('--sizes', nargs='+', default=['224x224', '800x1216'], metavar='HxW', help='sizes of images')
    parser.add_argument('--batch', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--device', choices=DEVICES, default='cpu')
    parser.add_argument('--dtype', choices=list(DTYPES), default='fp32', help='type of numbers (default: %(default)s)')
    parser.add_argument('--compile', action='store_true', help='also torch.compile, which takes minutes to start')
    parser.add_argument('--scales', action='store_true', help="the networks of the paper's table 3 instead, by scales")
    add_turn_flags(parser, repeats=15)


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
            shape = (args.batch, 3, *size)
            case = scales_case(args, shape) if args.scales else case_of(args, shape, Path(folder))
            found.append(measure(case, args, Path(folder), ceiling))
    return {
        'section': section_name('inference-scales' if args.scales else 'inference', args),
        'machine': place,
        'device': device_name(args.device),
        'cases': [one.json() for one in found],
        'panels': [bars(one.case.title, one.case.contenders, one.summaries) for one in found],
        'label': f'time / {found[0].case.contenders[0].against}',
        'text': (_scales_text if args.scales else _text)(args, found, place),
    }


def _checked(args: argparse.Namespace) -> list[tuple[int, int]]:
    from mmres2net.bench.networks import families
    from mmres2net.models import ALIASES

    check_flags(args)
    check_device(args.device, args.dtype)
    if args.batch < 1:
        raise UserError('--batch: choose 1 or more')
    if ALIASES.get(args.arch, args.arch) not in families():
        raise UserError(f'--arch {args.arch}: choose from {", ".join(families())}')
    return [parse_size(text, '--sizes') for text in args.sizes]


def case_of(args: argparse.Namespace, shape: Sequence[int], folder: Path) -> Case:
    """Return the contenders for images of ``shape`` (N, 3, H, W)."""
    from mmres2net.bench.jobs import images

    file = folder / f'images {"x".join(map(str, shape))}.npy'
    np.save(file, images(shape).numpy())
    rows = [row for row in ROWS if args.device in row.devices and (args.compile or not row.on_demand)]
    contenders = [_contender(row, args, shape, file) for row in rows]
    references = {kind: _reference(kind, args.arch, shape) for kind in ('arch', 'mmdet', 'resnet50')}
    return Case(_title(args.arch, shape), contenders, references, {'feature': BOUNDS[args.dtype]})


def _title(arch: str, shape: Sequence[int]) -> str:
    batch = '' if shape[0] == 1 else f', {shape[0]} images'
    return f'{arch}, {shape[2]}x{shape[3]}{batch}'


def _contender(row: Row, args: argparse.Namespace, shape: Sequence[int], images: Path) -> Contender:
    network = {'source': row.source, 'kind': row.kind, 'arch': args.arch}
    if row.runtime is None:
        job = f'{JOBS}:Inference'
        options = {
            **network, 'shape': list(shape), 'mode': row.mode, 'device': args.device, 'dtype': args.dtype,
            'channels_last': row.channels_last,
        }  # fmt: skip
    else:
        job = f'{RUNTIMES}:{row.runtime}'
        options = {**network, 'folder': str(images.parent), 'images': str(images), 'threads': args.threads}
        options |= {'dtype': args.dtype, 'device': args.device}
    return Contender(
        row.name, job, options, BASE, row.kind, row.keep_memory, ours=row.source == 'ours' and row.runtime is None,
        note=row.note,
    )  # fmt: skip


def _reference(kind: str, arch: str, shape: Sequence[int]) -> Contender:
    options = {'arch': arch, 'shape': list(shape)}
    return Contender(_in_float64(kind), f'{JOBS}:Reference', {'job': 'Inference', 'kind': kind, 'options': options})


def scales_case(args: argparse.Namespace, shape: Sequence[int]) -> Case:
    """Return the networks of table 3, each in our best mode."""
    base, *_ = SCALES
    network = {'source': 'ours', 'shape': list(shape), 'mode': 'optimized', 'device': args.device, 'dtype': args.dtype}
    keep = args.device == 'cpu'
    contenders = [
        Contender(
            arch, f'{JOBS}:Inference', {**network, 'kind': 'arch', 'arch': arch}, base, _in_float64(arch), keep,
            ours=True,
        )
        for arch in SCALES
    ]  # fmt: skip
    contenders.append(
        Contender(
            'ResNet-50', f'{JOBS}:Inference', {**network, 'kind': 'resnet50', 'arch': base}, base,
            _in_float64('resnet50'), keep, ours=True,
        )
    )  # fmt: skip
    references = {_in_float64(arch): _reference('arch', arch, shape) for arch in SCALES}
    references[_in_float64('resnet50')] = _reference('resnet50', base, shape)
    title = f'Scales at preserved complexity, {shape[2]}x{shape[3]}'
    return Case(title, contenders, references, {'feature': BOUNDS[args.dtype]})


def _in_float64(name: str) -> str:
    return f'{name} in float64'


def _operations(one: Measured) -> Mapping[str, int]:
    """Return the operations of a call, by contender: those of the network that it has to equal."""
    return {
        each.name: one.facts[each.same_as or '']['operations']
        for each in one.case.contenders
        if each.name in one.summaries
    }


def _text(args: argparse.Namespace, found: Sequence[Measured], place: str) -> str:
    return '\n\n'.join([
        f"""## Inference of {args.arch}{_unusual(args)}

All networks of a kind have the same seeded weights and get the same images. Before anything is timed, their features
are compared with those of {_sources(found)} in float64; the largest difference, as a share of a feature's largest
value, is in the table. mmdet's Res2Net is another network (a deep stem, an averaging shortcut, another pool), so its
features are compared with ours under `stage_pool='mmdet'`, and its time is no peer's. Exports are for the one size, in
float32, and both by the same exporter.""",
        *(_case_text(one) for one in found),
        _closing(args, place),
    ])  # fmt: skip


def _case_text(one: Measured) -> str:
    columns = [*one.ceiling_columns(_operations(one)), one.difference_column()]
    parts = [
        f'### {one.case.title}',
        ratio_table(one.case.contenders, one.summaries, one.absent, columns),
        pair_table(PAIRS, one.runs),
        one.ceiling_text(),
    ]
    return '\n\n'.join(part for part in parts if part)


def _sources(found: Sequence[Measured]) -> str:
    used = sorted({facts['source'] for one in found for facts in one.facts.values() if 'source' in facts})
    return ' or '.join({'timm': 'timm', 'ours': 'our own network'}[source] for source in used)


def _scales_text(args: argparse.Namespace, found: Sequence[Measured], place: str) -> str:
    base = next(iter(SCALES.values()))
    milliseconds = {**SCALES, 'ResNet-50': RESNET50_OF_TABLE_3}
    papers = Column('paper, ms', {name: str(value) for name, value in milliseconds.items()})
    ratios = Column('paper, ratio', {name: f'{value / base:.3f}' for name, value in milliseconds.items()})
    tables = [
        f'### {one.case.title}\n\n'
        + ratio_table(one.case.contenders, one.summaries, one.absent, [ratios, papers])
        + f'\n\n{one.ceiling_text()}'
        for one in found
    ]
    head = f"""## Scales{_unusual(args)}

Table 3 of the paper gives times of the same networks, on another machine and in another framework, so that only the
ratios compare: what a network of 4 or 8 scales takes more than one of 2 at the same number of operations. Ours run in
our best mode (optimized, memory kept). Features equal those in float64, as above."""
    return '\n\n'.join([head, *tables, _closing(args, place)])


def _unusual(args: argparse.Namespace) -> str:
    return '' if (args.device, args.dtype) == ('cpu', 'fp32') else f', {args.device} {args.dtype}'


def _closing(args: argparse.Namespace, place: str) -> str:
    device = device_name(args.device)
    return closing(args, f'{place}; {device}' if device else place) + f'\n- Numbers: {args.dtype}'
