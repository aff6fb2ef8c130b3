"""Zip and tar files: unpacked by the standard library into a temporary folder, then moved into place.

The temporary folder is there until every file is in place: as long as it exists, the archive is not finished.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmres2net.errors import UserError
from mmres2net.fetch.progress import log, progress_bar
from mmres2net.files import file_size, require_space

# RuntimeError: an encrypted zip file; NotImplementedError: a compression that Python cannot read, such as Deflate64.
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError,
    NotImplementedError,
)  # fmt: skip
Member = zipfile.ZipInfo | tarfile.TarInfo


class DamagedArchiveError(Exception):
    """The archive cannot be read to its end."""


def unpack(path: Path, places: Mapping[str, str], root: Path, temporary: Path) -> None:
    """Unpack those members of an archive that have a place below ``root``.

    A file that is there with the right size stays as it is; one of another size is renamed to NAME.old.

    Args:
        path: The archive.
        places: Beginning of a member's name, such as `set/`, to the path below ``root`` that replaces it. `set/*.jpg`
            is for those with this end alone; other members stay packed.
        root: The folder of the data sets.
        temporary: Folder to unpack into; removed at the end. A killed process leaves it, and the next call replaces it.

    Raises:
        DamagedArchiveError: The archive cannot be read to its end, or not by Python.
        UserError: It holds a path or a link that could lead elsewhere, or the disk is too small; nothing is written.
        OSError: A file cannot be written.
    """
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path) as archive:
            members = archive.infolist() if isinstance(archive, zipfile.ZipFile) else archive.getmembers()
            targets = _targets(path, members, places, root)
            missing = {t: member for t, member in targets.items() if file_size(t) != _size(member)}
            require_space(_space(missing))
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            with progress_bar(f'unpack {path.name}', sum(map(_size, missing.values()))) as bar:
                for member in missing.values():
                    if isinstance(archive, zipfile.ZipFile):
                        archive.extract(member, temporary)  # type: ignore[arg-type]
                    else:
                        archive.extract(member, temporary, filter='data')  # type: ignore[arg-type]
                    bar.update(_size(member))
    except BROKEN as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DamagedArchiveError(f'it cannot be unpacked: {type(error).__name__}, {error}') from error
    for target, member in missing.items():
        _move(temporary / _name(member), target)
    shutil.rmtree(temporary)


def _name(member: Member) -> str:
    return member.filename if isinstance(member, zipfile.ZipInfo) else member.name


def _size(member: Member) -> int:
    return member.file_size if isinstance(member, zipfile.ZipInfo) else member.size


def _kind(member: Member) -> str:
    """Return 'file', 'folder', 'link' or 'special file'."""
    if isinstance(member, zipfile.ZipInfo):
        mode = member.external_attr >> 16  # zero if the archive was made without Unix modes
        is_file, is_link = stat.S_ISREG(mode) or not stat.S_IFMT(mode), stat.S_ISLNK(mode)
        return 'folder' if member.is_dir() else 'link' if is_link else 'file' if is_file else 'special file'
    is_link = member.issym() or member.islnk()
    return 'folder' if member.isdir() else 'link' if is_link else 'file' if member.isfile() else 'special file'


def _targets(path: Path, members: list, places: Mapping[str, str], root: Path) -> dict[Path, Member]:
    """Return the files that have a place, by the path that they go to."""
    targets = {}
    for member in members:
        parts = PurePosixPath(_name(member)).parts
        name = '/'.join(parts)  # without the leading ./ of some archives
        outside = _name(member).startswith('/') or '..' in parts
        place, kind = _place(name, places), _kind(member)
        if outside or (place and kind not in ('file', 'folder')):
            what = 'a path that leads outside of its folder' if outside else f'a {kind}'
            raise UserError(f'{path} holds {_name(member)!r}, {what}: not the official file; nothing was unpacked')
        if place and kind == 'file':
            targets[root / place] = member
    return targets


def _place(name: str, places: Mapping[str, str]) -> str:
    """Return the path below the root for a member; empty if it has no place."""
    for pattern, place in places.items():
        start, _, end = pattern.partition('*')
        if name.startswith(start) and name.endswith(end):
            return place + name[len(start) :]
    return ''


def _space(missing: Mapping[Path, Member]) -> Counter[Path]:
    space: Counter[Path] = Counter()
    for target, member in missing.items():
        space[target.parent] += _size(member)
    return space


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        old = target.with_name(f'{target.name}.old')
        log(f'{target} differs from the file in the archive; it is kept as {old.name}')
        target.rename(old)
    shutil.move(source, target)  # a folder of the place may be a link to another disk
