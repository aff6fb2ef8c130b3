"""``mmres2net export``: a model into a file for another runtime, compared with the model before it gets its name."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmres2net.engine.loading import safe_loading
from mmres2net.engine.source import ModelSource, read_source
from mmres2net.errors import UserError
from mmres2net.export.compare import Comparison
from mmres2net.export.formats import WRITERS, write_graph
from mmres2net.export.graphs import Graph, make_graph
from mmres2net.export.verify import (
    Verifier,
    as_batch,
    fault_of,
    format_comparisons,
    images_for,
    make_copies,
    network_pixels,
)
from mmres2net.files import writable_dir
from mmres2net.flags import parse
from mmres2net.predict.inputs import find_files
from mmres2net.predict.runtimes import open_file
from mmres2net.text import parse_size

UNVERIFIED = '.unverified'
MAX_TOLERANCE = 0.1
MAX_PIXELS = 50 * 10**6


def main(argv: Sequence[str] | None = None) -> int:
    """Export by the flags in ``argv`` and print the comparison; return 1 if the file failed it, else 0.

    Raises:
        UserError: A mistake in config, flags or checkpoint, or a model that cannot be exported so.
    """
    args = parse('export', argv)
    check_flags(args)
    with safe_loading(allow_pickle=args.allow_unsafe_checkpoint):
        source = read_source(
            args.config,
            args.checkpoint,
            options=args.cfg_options,
            data=args.data,
            allow_pickle=args.allow_unsafe_checkpoint,
        )
    return export(source, args)


def check_flags(args: argparse.Namespace) -> None:
    """Raise a UserError for flags that do not go together or a place that cannot be written to, before any reading."""
    if (args.checkpoint is None) != args.random:
        raise UserError('name a checkpoint, or give --random (and no checkpoint) to try the export with random weights')
    if not 0 < args.tolerance <= MAX_TOLERANCE:
        raise UserError(f'--tolerance {args.tolerance}: choose more than 0 and at most {MAX_TOLERANCE}')
    if args.fixed and not args.size:
        raise UserError('--fixed needs --size HxW')
    if args.size:
        height, width = parse_size(args.size)
        if height * width > MAX_PIXELS:
            raise UserError(f'--size {args.size}: choose at most {MAX_PIXELS // 10**6} million pixels')
    find_files(args.images)
    if args.out and Path(args.out).suffix != WRITERS[args.to].suffix:
        raise UserError(f'--out {args.out}: a file of --to {args.to} ends in {WRITERS[args.to].suffix}')
    writable_dir(Path(args.out or 'x').absolute().parent, '--out')


def export(source: ModelSource, args: argparse.Namespace) -> int:
    """Write the file and compare it with the model; return the exit status.

    A UserError says that the model cannot be exported so, or that the file exists.
    """
    size = parse_size(args.size) if args.size else None
    graph = make_graph(source, args.part, size if args.fixed else None)
    target = Path(args.out or default_name(args.config, args.to, graph.metadata.task))
    parts = [target, *([target.with_suffix('.bin')] if args.to == 'openvino' else [])]
    existing = [str(part) for part in parts if part.exists()]
    if existing and not args.overwrite:
        raise UserError(f'{" and ".join(existing)} exists: choose another name with --out, or give --overwrite')
    if graph.note:
        print(f'note: {graph.note}')
    with tempfile.TemporaryDirectory(prefix='.export-', dir=target.absolute().parent) as folder:
        rows, images = _write_and_verify(source, graph, args, Path(folder), target.name)
        fault = fault_of(rows, graph.metadata.task)
        place = target.with_name(f'{target.stem}{UNVERIFIED}{target.suffix}') if fault else target
        for part in parts:
            part.unlink(missing_ok=True)  # also after a failure: an older file would pass for the new one
            os.replace(Path(folder, part.name), place.with_suffix(part.suffix))
    print(f'compared with the model on {images}:\n{format_comparisons(rows)}')
    if fault:
        print(f'NOT VERIFIED, do not use it: {place}: {fault}')
        return 1
    takes = f'images of {args.size}' if args.fixed else 'images of any size'
    print(
        f'written: {place} ({graph.metadata.task}, {takes}, {"any batch" if graph.metadata.batch else "one at a time"})'
    )
    return 0


def _write_and_verify(
    source: ModelSource, graph: Graph, args: argparse.Namespace, folder: Path, name: str
) -> tuple[list[Comparison], str]:
    with tempfile.TemporaryDirectory() as scratch:
        size = parse_size(args.size) if args.size else None
        paths, images = images_for(source.cfg, args.images or list(map(str, source.images)), Path(scratch))
        copies = make_copies(paths, graph.metadata, size, Path(scratch))
        example = as_batch(network_pixels(copies[0], graph.metadata, size is not None))
        write_graph(graph, example, args.to, folder / name)
        verifier = Verifier(source, graph, open_file(folder / name), args.tolerance, size is not None)
        return list(verifier.run(paths, copies)), images


def default_name(config: str, kind: str, task: str) -> str:
    """Return the name of the file where none was given."""
    stem = Path(config.rpartition('::')[2]).stem
    return f'{stem}{"-backbone" if task == "backbone" else ""}{WRITERS[kind].suffix}'
