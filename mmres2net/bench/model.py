"""How long whole models take: a training step, and a test image from its file to predictions."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmres2net.bench.common import (
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
from mmres2net.bench.device import DEVICES, check_device, device_name
from mmres2net.bench.figures import Column, bars, ratio_table
from mmres2net.bench.turns import Contender, once
from mmres2net.errors import UserError

SUMMARY = 'time of a training step and of a test image of a whole detector or segmentor, ours and the stock one'
JOBS = 'mmres2net.bench.whole'
# Losses that follow the choice of regions change where rounding changes a choice.
BOUNDS = {'loss': 1e-3, 'sampled': 2e-2, 'scores': 1e-3, 'logits': 1e-3}
MMDET_BACKBONE = {'type': 'mmdet.Res2Net', 'depth': 50, 'scales': 4, 'base_width': 26}
MMDET_NETWORK = {'arch': 'res2net50_v1b_26w_4s', 'stage_pool': 'mmdet'}
OURS, FAST = 'ours, untouched', "ours, as the project's tools run it"


@dataclass(frozen=True)
class Row:
    """A contender, as data.

    Args:
        name: As in the table.
        config: Its config.
        backbone: Keys of its backbone that are changed.
        naming: Whose names the parameters of its backbone have.
        fast: Sped up as the project's tools do it.
        keep_memory: Runs with :func:`mmres2net.malloc.keep_freed_memory`.
        same_as: Name of the contender that it has to equal.
    """

    name: str
    config: str
    backbone: Mapping[str, Any] = field(default_factory=dict)
    naming: str = 'ours'
    fast: bool = False
    keep_memory: bool = False
    same_as: str | None = None


def _own(config: str, twin: str) -> tuple[Row, ...]:
    """Return our config and its ResNet twin, untouched and as the tools run them."""
    resnet, fast = 'ResNet-50: untouched', "ResNet-50: as the project's tools run it"
    return (
        Row(OURS, config),
        Row(FAST, config, fast=True, keep_memory=True, same_as=OURS),
        Row(resnet, twin),
        Row(fast, twin, fast=True, keep_memory=True, same_as=resnet),
    )


def _detector(config: str, twin: str, host: str) -> tuple[Row, ...]:
    """Return a detector with mmdet's own Res2Net in mmdet's own config, the same function by ours, and our config."""
    stock, own = "mmdet's config with mmdet's Res2Net", "mmdet's network by ours, as the project's tools run it"
    return (
        Row(stock, host, MMDET_BACKBONE, 'mmdet'),
        Row(f'{stock}, memory kept', host, MMDET_BACKBONE, 'mmdet', keep_memory=True, same_as=stock),
        Row(own, config, MMDET_NETWORK, fast=True, keep_memory=True, same_as=stock),
        *_own(config, twin),
    )


# The first row of each is what the others are compared with. mmseg has no Res2Net of its own.
MODELS: Mapping[str, tuple[Row, ...]] = {
    'faster_rcnn_r2n50': _detector('faster_rcnn_r2n50', 'faster_rcnn_r50', 'mmdet::faster-rcnn_r50_fpn_1x_coco'),
    'mask_rcnn_r2n50': _detector('mask_rcnn_r2n50', 'mask_rcnn_r50', 'mmdet::mask-rcnn_r50_fpn_1x_coco'),
    'deeplabv3plus_r2n50': _own('deeplabv3plus_r2n50', 'deeplabv3plus_r50'),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument('--config', default='faster_rcnn_r2n50', help='one of ' + ', '.join(MODELS))
    parser.add_argument('--data', metavar='DIR', help='real images in the standard layout; default: generated ones')
    parser.add_argument('--size', default='320x480', metavar='HxW', help='of all images (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='images a training step (default: %(default)s)')
    parser.add_argument('--device', choices=DEVICES, default='cpu')
    add_turn_flags(parser, repeats=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, time in turns, and return the figures with the ``text`` of the section.

    Raises:
        UserError: A flag or the data do not fit.
        MeasurementError: Contenders disagree, or one of ours failed.
    """
    name = config_name(args.config)
    size = parse_size(args.size, '--size')
    check_flags(args)
    check_device(args.device, 'fp32')
    if args.batch < 1:
        raise UserError('--batch: choose 1 or more')
    place = here()
    with tempfile.TemporaryDirectory() as folder:
        source = data_source(args, folder)
        shared = {**source, 'size': list(size)}
        batch = str(Path(folder) / 'batch.pkl')
        config = MODELS[name][-1].config
        once(f'{JOBS}:write_batch', {**shared, 'config': config, 'images': args.batch, 'file': batch}, args.threads)
        ceiling = ceiling_contenders(args.device, 'fp32')
        step = measure(case_of(name, 'TrainStep', {**shared, 'batch': batch}, args), args, Path(folder), ceiling)
        image = measure(case_of(name, 'Prediction', shared, args), args, Path(folder), ceiling)
    found = [step, image]
    return {
        'section': section_name(f'model-{name}', args),
        'machine': place,
        'device': device_name(args.device),
        'cases': [one.json() for one in found],
        'panels': [bars(one.case.title, one.case.contenders, one.summaries) for one in found],
        'label': f'time / {MODELS[name][0].name}',
        'text': _text(name, args, step, image, place),
    }


def config_name(config: str) -> str:
    """Return the key of ``MODELS`` that a path or name means.

    Raises:
        UserError: None; only configs with a known stock counterpart can be compared.
    """
    name = Path(config).name.removesuffix('.py')
    if name not in MODELS:
        raise UserError(f'--config {config}: choose from {", ".join(MODELS)}; others have no stock config to meet')
    return name


def data_source(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return where images come from: the folder that the user gives, or generated ones below ``folder``."""
    if args.data:
        if not Path(args.data).is_dir():
            raise UserError(f'--data {args.data}: no such folder')
        return {'data': str(Path(args.data).resolve()), 'embedded': False}
    made = once('mmres2net.bench.setups:make_data', {'folder': str(Path(folder) / 'data')}, args.threads)
    return {'data': made, 'embedded': True}


def case_of(name: str, job: str, shared: Mapping[str, Any], args: argparse.Namespace) -> Case:
    """Return the contenders of ``job``."""
    rows = MODELS[name]
    shared = {**shared, 'device': args.device}
    contenders = [
        Contender(
            row.name,
            f'{JOBS}:{job}',
            {**shared, 'config': row.config, 'backbone': dict(row.backbone), 'naming': row.naming, 'fast': row.fast},
            rows[0].name,
            row.same_as,
            row.keep_memory and args.device == 'cpu',
            ours=row.naming == 'ours' and not row.config.startswith('mmdet::'),
        )
        for row in rows
    ]
    images = f'{args.batch} images' if args.batch > 1 else 'one image'
    what = f'training step, {images} of' if job == 'TrainStep' else 'test image of'
    return Case(f'{name}: {what} {args.size}', contenders, bounds=BOUNDS)


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the pairs of a contender and the one that computes the same."""
    alike = [(row.name, row.same_as) for row in rows if row.same_as and row.same_as != rows[0].name]
    own = [(row.name, f'{row.same_as}, memory kept') for row in rows if row.fast and row.same_as == rows[0].name]
    names = {row.name for row in rows}
    return [*(pair for pair in own if pair[1] in names), *alike, (FAST, "ResNet-50: as the project's tools run it")]


def _text(name: str, args: argparse.Namespace, step: Measured, image: Measured, place: str) -> str:
    peaks = {one: found.peak_mib for one, found in step.summaries.items()}
    memory = Column('peak, MiB', {one: f'{peak:,.0f}' for one, peak in peaks.items()})
    tables = [
        _case_text(name, step, [memory, *step.ceiling_columns(_operations(step)), step.difference_column()]),
        _case_text(name, image, [*image.ceiling_columns(_operations(image)), image.difference_column()]),
    ]
    device = device_name(args.device)
    images = f'images of {Path(args.data).name}' if args.data else 'generated images'
    head = f"""## {name}

On {images}, all resized to {args.size} exactly. A training step is preprocessing, losses, backward pass and the
optimizer's step on a batch that is ready; the learning rate is 0, so that all steps are alike. A test image goes from
its file to predictions. Weights are random, the same for all of a kind; a detector's score threshold is where 300 pairs
of box and class pass. Before anything is timed, losses, and the best scores or the logits, are compared with those of
the untouched model. **Peak** is the most memory held beyond what the process held before its first step."""
    return '\n\n'.join([head, *tables, closing(args, f'{place}; {device}' if device else place)])


def _operations(one: Measured) -> Mapping[str, int]:
    """Return the operations of a call, by contender: its own count, or that of the contender that it equals."""
    named = {each.name: each.same_as for each in one.case.contenders if each.name in one.summaries}
    facts = {name: one.facts[name] or one.facts[same_as or name] for name, same_as in named.items()}
    return {name: found['operations'] for name, found in facts.items()}


def _case_text(name: str, one: Measured, columns: Sequence[Column]) -> str:
    parts = [
        f'### {one.case.title}',
        ratio_table(one.case.contenders, one.summaries, one.absent, columns),
        pair_table(_pairs(MODELS[name]), one.runs),
        one.ceiling_text(),
    ]
    return '\n\n'.join(part for part in parts if part)
