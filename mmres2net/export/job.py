"""``mmres2net export``: a model into a file for another runtime, compared with the model before it gets its name."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import DictAction

from mmres2net.engine.loading import safe_loading
from mmres2net.errors import UserError
from mmres2net.export.formats import WRITERS, Graph, write
from mmres2net.export.graphs import PARTS, graph_of
from mmres2net.export.source import Source, read_source, resize_of
from mmres2net.export.verify import check_tolerance, fault_of, images_for, sized, table, verify
from mmres2net.predict.runtimes import open_file
from mmres2net.weights.reading import FLAG

UNVERIFIED = '.unverified'


def parser(prog: str = 'mmres2net export') -> argparse.ArgumentParser:
    """Return the flags of the export."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Write a model as a file for another runtime, and compare the file with the model.',
        epilog='Exit status: 0, 1 where the file does not do what the model does, 2 where nothing was written. '
        'Backbones and segmentors take batches, detectors one image at a time.',
    )
    flags.add_argument('config', help='a config file, the name of a shipped one, or HOST::NAME')
    flags.add_argument('checkpoint', nargs='?', help='a checkpoint of this config')
    flags.add_argument('--to', choices=WRITERS, required=True, help='the format')
    flags.add_argument('--out', metavar='FILE', help='default: CONFIG[-backbone] and the suffix of the format, here')
    flags.add_argument('--part', choices=PARTS, help='default: whole where it can be, else the backbone')
    flags.add_argument('--size', metavar='HxW', help='size of the images it is compared on; default: as in testing')
    flags.add_argument('--fixed', action='store_true', help='take images of --size alone, not of any size')
    flags.add_argument('--images', nargs='+', default=[], metavar='PATH', help='images or folders to compare on')
    flags.add_argument('--tolerance', type=float, default=1e-3, metavar='T', help='default: %(default)s')
    flags.add_argument('--random', action='store_true', help='export random weights, for a trial')
    flags.add_argument(FLAG, action='store_true', help='RUNS CODE from the checkpoint, if it needs any to be read')
    flags.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings that override the config'
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Export by the flags in ``argv`` and print the comparison; return 1 if the file failed it, else 0.

    Raises:
        UserError: A mistake in config, flags or checkpoint, or a model that cannot be exported so.
    """
    args = parser().parse_args(argv)
    check_flags(args)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint):
        source = read_source(
            args.config,
            args.checkpoint,
            options=args.cfg_options,
            allow_pickle=args.allow_unsafe_checkpoint,
        )
    return export(source, args)


def check_flags(args: argparse.Namespace) -> None:
    """Check what can be checked before anything is read.

    Raises:
        UserError: Flags that do not go together, or no place to write to.
    """
    if (args.checkpoint is None) != args.random:
        raise UserError('name a checkpoint, or give --random (and no checkpoint) to try the export with random weights')
    check_tolerance(args.tolerance)
    if args.fixed and not args.size:
        raise UserError('--fixed needs --size HxW')
    size_of(args.size)
    if args.out:
        suffix = WRITERS[args.to].suffix
        if Path(args.out).suffix != suffix:
            raise UserError(f'--out {args.out}: a file of --to {args.to} ends in {suffix}')
        if not Path(args.out).absolute().parent.is_dir():
            raise UserError(f'--out {args.out}: no folder {Path(args.out).parent}; make it first')


def size_of(text: str | None) -> tuple[int, int] | None:
    """Return height and width in ``HxW``; None for None.

    Raises:
        UserError: It is no such text, or smaller than a network can take.
    """
    if text is None:
        return None
    match = re.fullmatch(r'(\d+)[xX](\d+)', text)
    if not match or min(int(match[1]), int(match[2])) < 33:
        raise UserError(f'--size {text}: give height and width in pixels, 33 or more each, as 800x1216')
    return int(match[1]), int(match[2])


def export(source: Source, args: argparse.Namespace) -> int:
    """Write the file and compare it with the model; return the exit status.

    Raises:
        UserError: The model cannot be exported so.
    """
    size = size_of(args.size)
    module, facts, axes, note = graph_of(source, args.part, size if args.fixed else None)
    if note:
        print(f'note: {note}')
    scale = resize_of(source.cfg)[0]
    images, names = images_for(source.cfg, args.images)
    images = sized(images, facts.size, size or (scale and (min(scale), max(scale))))
    example = torch.from_numpy(images[0].transpose(2, 0, 1)[None].copy())
    target = Path(args.out or default_name(args.config, args.to, facts.task))
    with tempfile.TemporaryDirectory(prefix='.export-', dir=target.absolute().parent) as folder:
        draft = Path(folder, target.name)
        write(Graph(module, example, facts, axes), args.to, draft)
        rows = list(verify(open_file(draft), source, images, args.tolerance))
        fault = fault_of(rows, facts.task)
        place = target.with_name(f'{target.stem}{UNVERIFIED}{target.suffix}') if fault else target
        for part in Path(folder).iterdir():  # OpenVINO has its weights in a second one
            part.replace(place.with_suffix(part.suffix))
    print(f'compared with the model on {names}:\n{table(rows)}')
    takes = f'images of {size[0]}x{size[1]}' if facts.size and size else 'images of any size'
    if fault:
        print(f'NOT VERIFIED, do not trust it: {place}: {fault}')
        return 1
    print(f'written: {place} ({facts.task}, {takes}, {"any batch" if facts.batch else "one at a time"})')
    return 0


def default_name(config: str, kind: str, task: str) -> str:
    """Return the name of the file where none was given."""
    stem = Path(config.rpartition('::')[2]).stem
    return f'{stem}{"-backbone" if task == "backbone" else ""}{WRITERS[kind].suffix}'
