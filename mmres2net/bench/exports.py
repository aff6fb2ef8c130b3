"""ONNX files of the networks that are compared, for the runtimes: ``python -m mmres2net.bench.exports``.

Each file is written in a process of its own: the contenders that run it have no torch in theirs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmres2net.bench.worker import MissingError

if TYPE_CHECKING:
    from torch import Tensor, nn

LAST_WORDS = 300
OPSET = 17


def exported(folder: str, source: str, kind: str, arch: str, shape: Sequence[int]) -> Path:
    """Return the ONNX file of a network for images of one shape, written by the first who asks.

    Raises:
        MissingError: It could not be exported; the message has the last words of the exporter.
    """
    file = Path(folder) / f'{source}-{kind}-{arch}-{"x".join(map(str, shape))}.onnx'
    if not file.exists():
        draft = file.with_suffix('.draft.onnx')
        command = [sys.executable, '-m', __name__, source, kind, arch, str(draft), *map(str, shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ['it said nothing']
            raise MissingError(f'the export failed: {last[0][-LAST_WORDS:]}')
        draft.rename(file)
    return file


def export(source: str, kind: str, arch: str, file: Path, shape: Sequence[int]) -> None:
    """Write the ONNX file of a network with the weights of the comparison."""
    from mmres2net.bench.jobs import images
    from mmres2net.bench.networks import build

    network = build(source, kind, arch)
    write(network, images(shape), file)


def write(network: nn.Module, x: Tensor, file: Path) -> None:
    """Write the file, for ours and for peers by the same exporter, so that the graphs differ and nothing else."""
    import torch

    with torch.no_grad():
        torch.onnx.export(network, (x,), str(file), dynamo=False, opset_version=OPSET)


def main(argv: Sequence[str]) -> None:
    """Export by the arguments."""
    flags = argparse.ArgumentParser(prog='python -m mmres2net.bench.exports')
    for name in ('source', 'kind', 'arch'):
        flags.add_argument(name)
    flags.add_argument('file', type=Path)
    flags.add_argument('shape', type=int, nargs=4)
    args = flags.parse_args(argv)
    export(args.source, args.kind, args.arch, args.file, args.shape)
    os._exit(0)


if __name__ == '__main__':
    main(sys.argv[1:])
