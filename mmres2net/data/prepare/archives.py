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
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mmres2net.errors import UserError
from mmres2net.fetch.download import log, progress_bar
from mmres2net.files import file_size, require_space

# RuntimeError: an encrypted zip file; NotImplementedError: a compression that Python cannot read, such as Deflate64.
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError,
    NotImplementedError,
)  # fmt: skip


class Member(NamedTuple):
    """A file of an archive."""

    name: str
    size: int  # bytes
    open: Callable[[], Any]  # returns its content as a binary stream


def unpack(path: Path, places: Mapping[str, str], root: Path, temporary: Path) -> None:
    """Unpack those files of an archive that have a place below ``root``, but no links; see :func:`put`.

    A UserError says that it cannot be read to its end, that it holds a path that leads elsewhere, or that the disk is
    too small; then nothing is written.
    """
    log(f'unpacking {path}')
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path) as archive:
            members = list(_members(archive))
            if unsafe := [one.name for one in members if {'/', '..'} & {*PurePosixPath(one.name).parts}]:
                raise UserError(f'{path} holds {unsafe[0]!r}, a path that leads outside: not the official file')
            put(members, places, root, temporary)
    except BROKEN as error:
        shutil.rmtree(temporary, ignore_errors=True)
        ways = 'remove it and fetch it again, or unpack it with another program and name the folder with --from'
        raise UserError(
            f'{path} cannot be unpacked: {type(error).__name__}, {" ".join(str(error).split())}; {ways}'
        ) from error


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            if not entry.is_dir() and stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG):  # 0: no modes
                yield Member(entry.filename, entry.file_size, partial(archive.open, entry))
    else:
        for info in filter(tarfile.TarInfo.isfile, archive):
            yield Member(info.name, info.size, partial(archive.extractfile, info))


def put(members: Iterable[Member], places: Mapping[str, str], root: Path, temporary: Path) -> None:
    """Write the files that have a place below ``root``, by way of a folder ``temporary``.

    A file that is there with the right size stays as it is; one of another size is renamed to NAME.old. ``places`` has,
    by the beginning of a file's name such as `set/`, the path below ``root`` that replaces it; `set/*.jpg` is for files
    with this end alone, and other files are left out.
    """
    targets = {root / place: member for member in members if (place := _place(member.name, places))}
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
            log(f'{target} differs from the file in the archive; it is kept as {target.name}.old')
            target.rename(target.with_name(f'{target.name}.old'))
        shutil.move(temporary / str(i), target)  # a folder of the place may be a link to another disk
    shutil.rmtree(temporary)


def _place(name: str, places: Mapping[str, str]) -> str:
    """Return the path below the root for a file; empty if it has no place."""
    name = '/'.join(PurePosixPath(name).parts)  # without the leading ./ of some archives
    for pattern, place in places.items():
        start, _, end = pattern.partition('*')
        if name.startswith(start) and name.endswith(end):
            return place + name[len(start) :]
    return ''


def unpacked_files(places: Mapping[str, str], folders: Sequence[Path]) -> tuple[list[Member], list[str]]:
    """Return the files of an archive that the user has unpacked in one of ``folders``, and which are not there.

    Of ``datasets/imgs/pascal/*.jpg`` the folder, or the end of it, such as ``pascal``, may be anywhere in ``folders``.
    """
    members, absent = [], []
    for pattern in places:
        start, _, end = pattern.partition('*')
        tails = ['/'.join(Path(start).parts[n:]) for n in range(len(Path(start).parts))]
        found = (sorted(folder.glob(f'**/{tail}/[!.]*{end}')) for tail in tails for folder in folders)
        paths = next(filter(None, found), [])
        same = [path for path in paths if path.parent == paths[0].parent]
        members += [Member(start + path.name, path.stat().st_size, partial(path.open, 'rb')) for path in same]
        absent += [] if same else [f'a folder {start} with {end} files']
    return members, absent
