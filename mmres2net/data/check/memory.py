"""Remember checks that a large data set has passed, by its list of files and their times of change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmres2net.data.formats.base import Split
from mmres2net.files import write_atomic
from mmres2net.version import __version__

LEAST = 2000  # images: a smaller set is checked again in no time
FOLDER = 'mmres2net/data_checks'


def fingerprint(splits: Sequence[Split], settings: str, least: int | None = None) -> str:
    """Return a digest of all files of ``splits``: paths, sizes and times of change; empty for a small set.

    Args:
        splits: The data sets, with their samples listed.
        settings: Whatever else the verdict depends on.
        least: Images from which on a set counts as large; None: :data:`LEAST`.
    """
    if sum(len(split.samples) for split in splits) < (LEAST if least is None else least):
        return ''
    lines = [f'{__version__} {settings}']
    for split in splits:
        lines.append(f'{split.part} {split.node} {split.findings}')
        annotations = (sample.raw for sample in split.samples if isinstance(sample.raw, str))
        images = (path for sample in split.samples for path in (sample.image, sample.mask) if path)
        for path in (split.source, *annotations, *images):
            with suppress(OSError):
                facts = os.stat(path)
                lines.append(f'{path} {facts.st_size} {facts.st_mtime_ns}')
    return hashlib.sha256('\n'.join(lines).encode(errors='surrogateescape')).hexdigest()


def cache_file(name: str) -> Path:
    """Return where the check with the fingerprint ``name`` is remembered."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / FOLDER / name


def recall(name: str) -> str | None:
    """Return the text that was remembered with a fingerprint; None if there is none."""
    with suppress(OSError):
        return cache_file(name).read_text(encoding='utf-8') if name else None
    return None


def remember(name: str, text: str) -> None:
    """Remember ``text`` with a fingerprint; if the file cannot be written, the next run checks again."""
    if name:
        with suppress(OSError):
            cache_file(name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cache_file(name), text)
