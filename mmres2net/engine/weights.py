"""Weights that a run needs are fetched and looked at before it starts, and nothing of them is run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.errors import UserError
from mmres2net.init_cfg import pretrained_nodes
from mmres2net.swap.pixels import set_pixels
from mmres2net.weights.fetching import fetch_checkpoint, timm_pixels
from mmres2net.weights.reading import read_checkpoint

OURS = 'mmres2net.Pretrained'


@dataclass(frozen=True)
class _Start:
    """A part of the model that starts from a checkpoint, named by ``path`` in the config."""

    path: str
    checkpoint: str
    ours: bool
    arch: Any  # of the part, where it says


def fetch_weights(cfg: Config, *, allow_pickle: bool = False) -> None:
    """Make sure that every checkpoint which the model starts from is on this machine and can be read.

    Args:
        cfg: The config of the run.
        allow_pickle: Whether what MMEngine's own initialisers load may run code; for ours nothing ever may.

    Raises:
        UserError: One is missing, cannot be fetched or read, or would be overwritten by the initialiser behind it.
    """
    read: set[tuple[str, bool]] = set()
    for start in _starts(cfg):
        if (start.checkpoint, start.ours) in read:
            continue
        ways_out = (f'or name a file you have: --cfg-options {start.path}=FILE', 'or train without: --from-scratch')
        # A bare name is an architecture to our initialiser alone: to MMEngine's it is a file.
        bare = not start.ours and '://' not in start.checkpoint
        try:
            file = Path(start.checkpoint) if bare else fetch_checkpoint(start.checkpoint, ways_out=ways_out)
            read_checkpoint(file, allow_pickle=allow_pickle and not start.ours)
        except UserError as error:
            raise UserError(f'{start.path}={start.checkpoint}: {error}') from error
        read.add((start.checkpoint, start.ours))


def check_checkpoint(file: str | Path, role: str, *, allow_pickle: bool = False) -> Path:
    """Return the path of ``file`` if it is a checkpoint that can be read; an address is fetched.

    Args:
        file: A path or an address.
        role: What the file is to the run, for the message.
        allow_pickle: Whether it may run code.

    Raises:
        UserError: No such file, a damaged one, or one that would run code.
    """
    try:
        path = fetch_checkpoint(str(file)) if '://' in str(file) else Path(file).expanduser()
        read_checkpoint(path, allow_pickle=allow_pickle)
    except UserError as error:
        raise UserError(f'{role}: {error}') from error
    return path


def check_pixels(cfg: Config) -> list[str]:
    """Check that images are normalised as the weights want them; return what could not be checked.

    Only weights loaded by ``mmres2net.Pretrained`` are looked at: those are of networks whose input is known.

    Raises:
        UserError: The data preprocessor gives other pixels; the message has the lines to write.
    """
    notes = []
    for start in _starts(cfg):
        if not start.ours or not isinstance(start.arch, str):
            continue
        pixels = timm_pixels(start.checkpoint) if start.checkpoint.startswith('timm://') else None
        try:
            lines = set_pixels(copy.deepcopy(cfg), start.arch, pixels)
        except UserError as error:
            notes.append(f'whether images are normalised as {start.checkpoint} wants cannot be told: {error}')
            continue
        if lines:
            raise UserError(_wrong_pixels(start, lines))
    return list(dict.fromkeys(notes))


def _wrong_pixels(start: _Start, lines: list[str]) -> str:
    listed = '\n'.join(f'  {line}' for line in lines)
    options = ' '.join(f'"{line.split()[0]}={line.rpartition(" -> ")[2].replace(" ", "")}"' for line in lines)
    return (
        f'the weights {start.checkpoint} ({start.path}) want other pixels than this config gives; change\n{listed}\n'
        f'in the config, or give --cfg-options {options}'
    )


def _starts(cfg: Config) -> Iterator[_Start]:
    for node in pretrained_nodes(cfg.get('model') or {}):
        ours = getattr(node.type, '__module__', str(node.type)).startswith('mmres2net.')
        if ours and not node.is_last:
            raise UserError(
                f'{node.path}: {OURS} must be the last initializer, or one after it overwrites what it loads'
            )
        if node.type and not isinstance(node.checkpoint, str):
            raise UserError(f'{node.path}={node.checkpoint!r}: name a checkpoint, by a name, a path or a URL')
        if isinstance(node.checkpoint, str):
            yield _Start(node.path, node.checkpoint, ours, node.module.get('arch'))
