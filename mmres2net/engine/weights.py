"""Weights that a run needs are fetched and looked at before it starts."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config

from mmres2net.engine.config import pretrained_of
from mmres2net.errors import UserError


def fetch_weights(cfg: Config) -> None:
    """Make sure that every checkpoint which the model starts from is on this machine and is one.

    Files go where torch and MMEngine look for them (``torch.hub.get_dir()``); a hash in the name is checked.

    Raises:
        UserError: One is missing, cannot be fetched or is damaged.
    """
    for path, checkpoint in pretrained_of(cfg).items():
        url = _url_of(checkpoint)
        try:
            file = _download(url) if url else Path(checkpoint)
        except Exception as error:  # whatever the network does: the user needs the same three ways out
            raise UserError(
                f'the weights {url} cannot be fetched: {error}\n'
                f'  - fetch them elsewhere and put them at {_cached(url)}\n'
                f'  - or name a file you have: --cfg-options {path}=FILE\n'
                '  - or train without them: --from-scratch'
            ) from error
        check_checkpoint(file, f'named by {path}')


def _url_of(checkpoint: str) -> str:
    """Return the address behind a checkpoint's name; nothing where it is a file's path."""
    scheme, _, name = checkpoint.partition('://')
    if scheme in ('http', 'https'):
        return checkpoint
    if scheme == 'torchvision':
        from mmengine.runner.checkpoint import get_torchvision_models

        known = get_torchvision_models()
        if name not in known:
            raise UserError(f'{checkpoint}: torchvision has no weights of this name')
        return known[name]
    if name:
        raise UserError(
            f'{checkpoint}: weights are taken from a file, an https address or torchvision://NAME; '
            'fetch these and name the file'
        )
    return ''


def _cached(url: str) -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name


def _download(url: str) -> Path:
    target = _cached(url)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = re.search(r'-([a-f0-9]{8,})\.', target.name)
        print(f'fetching {url}')
        torch.hub.download_url_to_file(url, str(target), hash_prefix=hash_prefix.group(1) if hash_prefix else None)
    return target


def check_checkpoint(file: str | Path, role: str) -> Path:
    """Return ``file`` if it is a whole checkpoint.

    Args:
        file: A path.
        role: What the file is to the run, for the message.

    Raises:
        UserError: No such file, or a damaged one. Nothing of it is executed to find out.
    """
    file = Path(os.path.expanduser(file))
    if not file.is_file():
        raise UserError(f'no checkpoint at {file} ({role})')
    with file.open('rb') as stream:
        head = stream.read(64)
    if head[:2] == b'PK':
        fault = _zip_fault(file)
    elif head[:1] == b'\x80' or b'ustar' in head:
        fault = ''  # torch's formats before 1.6, which have no checksum
    else:
        fault = f'it begins with {head[:16]!r}'
    if fault:
        raise UserError(
            f'{file} ({role}) is not a whole checkpoint: {fault}. It may be cut short, or a web page saved by that '
            'name; delete it and fetch or write it again, or name an earlier one'
        )
    return file


def _zip_fault(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return str(error)
    return f'its part {broken} is damaged' if broken else ''
