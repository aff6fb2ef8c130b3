"""Zip files, tar files and what the user has unpacked from them: copied into a temporary folder, then moved into place.

The temporary folder is there until every file is in place: as long as it exists, the archive is not finished.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mmres2net.errors import UserError
from mmres2net.fetch.progress import log, progress_bar
from mmres2net.files import file_size, require_space

# RuntimeError: an encrypted zip file; NotImplementedError: a compression that Python cannot read, such as Deflate64.
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError,
    NotImplementedError,
)  # fmt: skip


class Member(NamedTuple):
    """An entry of an archive."""

    name: str
    size: int  # bytes
    is_folder: bool
    is_file: bool  # else it is a link or a special file
    open: Callable[[], Any]  # returns its content as a binary stream


class DamagedArchiveError(Exception):
    """The archive cannot be read to its end."""


def unpack(path: Path, places: Mapping[str, str], root: Path, temporary: Path) -> None:
    """Unpack those members of an archive that have a place below ``root``; see :func:`put` for the other arguments.

    Args:
        path: The archive.
        places: Beginning of a member's name, such as `set/`, to the path below ``root`` that replaces it. `set/*.jpg`
            is for those with this end alone; other members stay packed.

    Raises:
        DamagedArchiveError: The archive cannot be read to its end, or not by Python.
        UserError: It holds a path or a link that could lead elsewhere, or the disk is too small; nothing is written.
        OSError: A file cannot be written.
    """
    log(f'unpacking {path}')
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path) as archive:
            members = list(_members(archive))
            for member in members:
                outside = member.name.startswith('/') or '..' in PurePosixPath(member.name).parts
                if outside or (_place(member, places) and not member.is_file and not member.is_folder):
                    what = 'a path that leads outside of its folder' if outside else 'a link or special file'
                    raise UserError(
                        f'{path} holds {member.name!r}, {what}: not the official file; nothing was unpacked'
                    )
            put(members, places, root, temporary)
    except BROKEN as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DamagedArchiveError(f'it cannot be unpacked: {type(error).__name__}, {error}') from error


def put(members: Iterable[Member], places: Mapping[str, str], root: Path, temporary: Path) -> None:
    """Write the files that have a place below ``root``.

    A file that is there with the right size stays as it is; one of another size is renamed to NAME.old.

    Args:
        members: All entries; their names are safe.
        places: As for :func:`unpack`.
        root: The folder of the data sets.
        temporary: Folder to write into; removed at the end. A killed process leaves it, and the next call replaces it.
    """
    targets = {root / place: member for member in members if member.is_file and (place := _place(member, places))}
    missing = {target: member for target, member in targets.items() if file_size(target) != member.size}
    space: Counter[Path] = Counter()
    for target, member in missing.items():
        space[target.parent] += member.size
    require_space(space)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with progress_bar(temporary.stem, space.total()) as bar:
        for i, member in enumerate(missing.values()):
            with member.open() as source, (temporary / str(i)).open('wb') as draft:
                shutil.copyfileobj(source, draft)
            bar.update(member.size)
    for i, target in enumerate(missing):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            old = target.with_name(f'{target.name}.old')
            log(f'{target} differs from the file in the archive; it is kept as {old.name}')
            target.rename(old)
        shutil.move(temporary / str(i), target)  # a folder of the place may be a link to another disk
    shutil.rmtree(temporary)


def unpacked_files(places: Mapping[str, str], folders: Sequence[Path]) -> tuple[list[Member], list[str]]:
    """Return the files of an archive that the user has unpacked in one of ``folders``, and which are not there.

    Of ``datasets/imgs/pascal/*.jpg`` the folder, or the end of it, such as ``pascal``, may be in one of ``folders``.
    """
    members, absent = [], []
    for pattern in places:
        start, _, end = pattern.partition('*')
        steps = Path(start).parts
        nested = [place for folder in folders for place in sorted(folder.glob(f'*/{start}'))]
        direct = [folder.joinpath(*steps[n:]) for folder in folders for n in range(len(steps))]
        found = ((place, sorted(glob(f'*{end}', root_dir=place))) for place in [*direct, *nested])
        place, names = next((pair for pair in found if pair[1]), (Path(), []))
        paths = [place / name for name in names]
        members += [Member(start + p.name, p.stat().st_size, False, True, partial(p.open, 'rb')) for p in paths]
        absent += [] if names else [f'a folder {start} with {end} files']
    return members, absent


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            is_file = not entry.is_dir() and stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)  # 0: no modes
            yield Member(entry.filename, entry.file_size, entry.is_dir(), is_file, partial(archive.open, entry))
    else:
        for info in archive.getmembers():
            yield Member(info.name, info.size, info.isdir(), info.isfile(), partial(archive.extractfile, info))


def _place(member: Member, places: Mapping[str, str]) -> str:
    """Return the path below the root for a member; empty if it has no place."""
    name = '/'.join(PurePosixPath(member.name).parts)  # without the leading ./ of some archives
    for pattern, place in places.items():
        start, _, end = pattern.partition('*')
        if name.startswith(start) and name.endswith(end):
            return place + name[len(start) :]
    return ''
