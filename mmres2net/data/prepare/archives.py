"""Zip and tar files, unpacked file by file: each is whole or absent, and nothing lands outside of its place.

While an archive is being unpacked a journal lists its files. A journal that is there says: not finished.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from mmres2net.errors import UserError
from mmres2net.fetch.progress import BLOCK, log, progress_bar, write
from mmres2net.files import atomic_path, file_size, require_space

BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


class DamagedArchiveError(Exception):
    """The archive cannot be read to its end."""


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    kind: str  # 'file', 'folder', or what else it is
    open: Callable[[], IO[bytes] | None]


@contextmanager
def _entries_of(path: Path) -> Iterator[list[_Entry]]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
                yield [_Entry(i.filename, i.file_size, _zip_kind(i), partial(archive.open, i)) for i in infos]
        else:
            with tarfile.open(path) as tar:
                yield [_Entry(m.name, m.size, _tar_kind(m), partial(tar.extractfile, m)) for m in tar.getmembers()]
    except BROKEN as error:
        raise DamagedArchiveError(f'it cannot be unpacked: {type(error).__name__}, {error}') from error


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.is_dir():
        return 'folder'
    mode = info.external_attr >> 16  # zero where the archive was made without Unix modes
    return 'link' if stat.S_ISLNK(mode) else 'file' if stat.S_ISREG(mode) or not stat.S_IFMT(mode) else 'special file'


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isfile() or info.isdir():
        return 'file' if info.isfile() else 'folder'
    return 'link' if info.issym() or info.islnk() else 'special file'


def unpack(path: Path, places: Mapping[str, str], root: Path, journal: Path) -> None:
    """Unpack the members of an archive that have a place below ``root``.

    A file that is there with the right size is left as it is; one of another size is moved to NAME.old.

    Raises:
        DamagedArchiveError: The archive cannot be read to its end.
        UserError: It holds a path or a link that could lead elsewhere, or there is too little room; nothing is written.
        OSError: A file cannot be written; a later call continues.
    """
    with _entries_of(path) as entries:
        targets = _targets(path, entries, places, root)
        missing = {target: entry for target, entry in targets.items() if file_size(target) != entry.size}
        room: Counter[Path] = Counter()
        for target, entry in missing.items():
            room[target.parent] += entry.size
        require_space(room)
        lines = [f'{entry.size}\t{target.relative_to(root)}\n' for target, entry in targets.items()]
        journal.write_text(''.join(lines), encoding='utf-8')
        with progress_bar(f'unpack {path.name}', sum(room.values())) as bar:
            for target, entry in missing.items():
                _place(entry, target)
                bar.update(entry.size)
    journal.unlink()


def missing_bytes(journal: Path, root: Path) -> int:
    """Return how much of an archive is still to be unpacked, by the journal of the attempt that broke off."""
    lines = (line.split('\t', 1) for line in journal.read_text(encoding='utf-8').splitlines())
    return sum(int(size) for size, target in lines if file_size(root / target) != int(size))


def _targets(path: Path, entries: list[_Entry], places: Mapping[str, str], root: Path) -> dict[Path, _Entry]:
    targets = {}
    for entry in entries:
        parts = PurePosixPath(entry.name).parts
        name = '/'.join(parts)  # without the leading ./ that some archives have
        outside = entry.name.startswith('/') or '..' in parts
        place = next(((old, new) for old, new in places.items() if name.startswith(old)), None)
        if outside or (place and entry.kind not in ('file', 'folder')):
            what = 'a path that leads outside of its folder' if outside else f'a {entry.kind}'
            raise UserError(f'{path} holds {entry.name!r}, {what}: this is not the official file; nothing was unpacked')
        if place and entry.kind == 'file':
            targets[root / (place[1] + name[len(place[0]) :])] = entry
    return targets


def _place(entry: _Entry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        old = target.with_name(f'{target.name}.old')
        log(f'{target} differs from the one in the archive; it is kept as {old.name}')
        target.rename(old)
    stream = entry.open()
    if stream is None:
        raise DamagedArchiveError(f'{entry.name} has no content')
    with stream, atomic_path(target, sync=False) as path, path.open('wb') as file:
        while block := stream.read(BLOCK):
            write(file, block)
