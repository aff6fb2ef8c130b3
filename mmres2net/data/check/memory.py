"""Remember checks that a large data set has passed, by its list of files and their times of change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmres2net.data.formats.base import Split
from mmres2net.files import write_atomic
from mmres2net.version import __version__

LEAST = 2000  # files: a smaller set is checked again in no time
FOLDER = 'mmres2net/data_checks'


def fingerprint(splits: Sequence[Split], settings: str) -> str:
    """Return a digest of all files of ``splits``: paths, sizes and times of change; empty for a small set.

    Args:
        splits: The data sets, with their samples listed.
        settings: Whatever else the verdict depends on.
    """
    if sum(len(split.samples) for split in splits) < LEAST:
        return ''
    digest = hashlib.sha256(f'{__version__} {settings}'.encode())
    for split in splits:
        node = json.dumps(split.node, sort_keys=True, default=str)
        digest.update(f'{split.part} {node} {split.findings}'.encode(errors='replace'))
        for path in _files(split):
            try:
                facts = os.stat(path)
                digest.update(f'{path} {facts.st_size} {facts.st_mtime_ns}\n'.encode(errors='surrogateescape'))
            except OSError:
                digest.update(f'{path} absent\n'.encode(errors='surrogateescape'))
    return digest.hexdigest()


def _files(split: Split) -> Iterator[str]:
    yield split.source
    for sample in split.samples:
        yield sample.image
        yield sample.mask
        yield sample.raw if isinstance(sample.raw, str) else ''


def cache_file(name: str) -> Path:
    """Return where the check with the fingerprint ``name`` is remembered."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / FOLDER / name


def recall(name: str) -> str | None:
    """Return what was remembered with a fingerprint; None: nothing."""
    try:
        return cache_file(name).read_text(encoding='utf-8') if name else None
    except OSError:
        return None


def remember(name: str, text: str) -> None:
    """Remember ``text`` with a fingerprint; where nothing can be written, the check is done again next time."""
    if name:
        try:
            cache_file(name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cache_file(name), text)
        except OSError:
            pass
