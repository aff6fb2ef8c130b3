"""``mmres2net export``: a model into a file for another runtime, compared with the model before it gets its name."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from mmres2net.engine.source import ModelSource, read_source
from mmres2net.engine.weights import safe_loading
from mmres2net.errors import UserError
from mmres2net.export import int8
from mmres2net.export.formats import WRITERS, write_graph
from mmres2net.export.graphs import Graph, make_graph
from mmres2net.export.verify import Comparison, Verifier, channels_first, fault_of, images_for, make_copies
from mmres2net.files import writable_dir
from mmres2net.flags import parse
from mmres2net.predict.images import read_image
from mmres2net.predict.inputs import find_files
from mmres2net.predict.runtimes import open_file
from mmres2net.text import format_table, parse_size

UNVERIFIED = '.unverified'
MAX_TOLERANCE = 0.1
MAX_PIXELS = 50 * 10**6


def main(argv: Sequence[str] | None = None) -> int:
    """Export by the flags in ``argv`` and print the comparison; return 1 if the file failed it, or lost too much."""
    args = parse('export', argv)
    size = check_flags(args)
    unsafe = args.allow_unsafe_checkpoint
    with safe_loading(allow_pickle=unsafe):
        source = read_source(
            args.config, args.checkpoint, options=args.cfg_options, data=args.data, allow_pickle=unsafe
        )
    graph = make_graph(source, args.part)
    task, suffix = graph.metadata.task, WRITERS[args.to][0]
    kind = '-int8' if args.int8 else '-backbone' if task == 'backbone' else ''
    target = Path(args.out or Path(args.config.rpartition('::')[2]).stem + kind + suffix)
    parts = [target, *([target.with_suffix('.bin')] if args.to == 'openvino' else [])]
    existing = [str(part) for part in parts if part.exists()]
    if existing and not args.overwrite:
        raise UserError(f'{" and ".join(existing)} exists: choose another name with --out, or give --overwrite')
    images = int8.read_images(source, args) if args.int8 else None
    with tempfile.TemporaryDirectory(prefix='.export-', dir=target.absolute().parent) as folder:
        rows, shown = _write_and_verify(source, graph, args, size, Path(folder, target.name))
        cells = [
            (r.part, f'{r.difference:.2e}', f'{r.tolerance:.0e}', 'ok' if r.passed else 'FAILED', r.remark)
            for r in rows
        ]
        print(f'compared with the model on {shown}:')
        print(format_table(cells, ('compared', 'difference', 'allowed', '', '')))
        fault = fault_of(rows, task)
        if images is not None:
            fault = fault or int8.quantize(Path(folder, target.name), images, args.max_drop)
            if fault:
                print(f'REFUSED, nothing is written: {fault}')
                return 1
        place = target.with_name(f'{target.stem}{UNVERIFIED}{suffix}') if fault else target
        for part in parts:
            part.unlink(missing_ok=True)  # also after a failure: an older file would pass for the new one
            os.replace(Path(folder, int8.FOLDER if args.int8 else '', part.name), place.with_suffix(part.suffix))
    if fault:
        print(f'NOT VERIFIED, do not use it: {place}: {fault}')
        return 1
    print(f'written: {place} ({task}, images of any size, {"one at a time" if task == "detection" else "any batch"})')
    return 0


def check_flags(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return the height and width of ``--size``; a UserError if flags do not fit, before any reading."""
    if (args.checkpoint is None) != args.random:
        raise UserError('name a checkpoint, or give --random (and no checkpoint) to try the export with random weights')
    if not 0 < args.tolerance <= MAX_TOLERANCE:
        raise UserError(f'--tolerance {args.tolerance}: choose more than 0 and at most {MAX_TOLERANCE}')
    size = parse_size(args.size) if args.size else None
    if size and size[0] * size[1] > MAX_PIXELS:
        raise UserError(f'--size {args.size}: choose at most {MAX_PIXELS // 10**6} million pixels')
    int8.check_flags(args)
    find_files(args.images)
    suffix = WRITERS[args.to][0]
    if args.out and Path(args.out).suffix != suffix:
        raise UserError(f'--out {args.out}: a file of --to {args.to} ends in {suffix}')
    writable_dir(Path(args.out or 'x').absolute().parent, '--out')
    return size


def _write_and_verify(
    source: ModelSource, graph: Graph, args: argparse.Namespace, size: tuple[int, int] | None, path: Path
) -> tuple[list[Comparison], str]:
    with tempfile.TemporaryDirectory() as scratch:
        paths, images = images_for(args.images or list(map(str, source.images)), Path(scratch))
        copies = make_copies(paths, graph.metadata, size, Path(scratch))
        write_graph(graph, torch.from_numpy(channels_first(read_image(copies[0]))[None]), args.to, path)
        return list(Verifier(source, graph, open_file(path), args.tolerance).run(paths, copies)), images
