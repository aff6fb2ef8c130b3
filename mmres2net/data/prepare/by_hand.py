"""Files that the user has to fetch: found in the folder of ``--from``, and put where the configs read them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mmres2net.data.prepare.archives import DamagedArchiveError, unpack
from mmres2net.errors import UserError
from mmres2net.fetch.download import Remote, damage
from mmres2net.fetch.progress import log, progress_bar
from mmres2net.files import atomic_path, file_size, require_space

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Part:
    """Files of one folder that the user fetches."""

    inside: str  # the folder, in the archive or in what was unpacked from it
    suffix: str  # of its files
    place: str  # the folder that they go to, below the root
    archive: str = ''  # a zip file that has the folder; empty if the user has to unpack it, as with rar files
    md5: str = ''  # of the archive; empty if it is not known


@dataclass(frozen=True)
class ByHand:
    """Files that the user has to fetch; without parts and lists the user also puts them in place."""

    steps: tuple[str, ...]  # what to fetch from where, and what to do with it; {root} stands for the root
    parts: tuple[Part, ...] = ()
    lists: str = ''  # the folder below the root for train.txt, val.txt and test.txt

    @property
    def can_collect(self) -> bool:
        """Whether files are collected from a folder of the user."""
        return bool(self.parts or self.lists)

    def collect(self, folders: Sequence[Path], root: Path) -> list[str]:
        """Put the files found in ``folders`` in place; return what is missing. Files of the right size there stay.

        Raises:
            UserError: An archive is damaged, a list cannot be read, or there is too little space.
            OSError: A file cannot be written.
        """
        absent = [part for part in self.parts if not _lay_out(part, folders, root)]
        missing = [
            f'{f"{part.archive} or " if part.archive else ""}a folder {part.inside} with {part.suffix} files'
            for part in absent
        ]
        return missing + (_write_lists(root / self.lists, folders) if self.lists else [])


def _lay_out(part: Part, folders: Sequence[Path], root: Path) -> bool:
    """Unpack or copy the files of a part; return whether they were found."""
    archive = next((path for folder in folders if part.archive and (path := folder / part.archive).is_file()), None)
    unpacked = next((found for folder in folders if (found := _find(folder, part))), None)
    if archive is not None:
        _unpack(archive, part, root)
    elif unpacked is not None:
        _copy(unpacked, part, root)
    return bool(archive or unpacked)


def _unpack(archive: Path, part: Part, root: Path) -> None:
    log(f'unpacking {part.inside} of {archive}')
    ways = 'fetch it again, or unpack it with another program and name the folder with --from'
    if fault := damage(archive, Remote(archive.name, (), None, part.md5)):
        raise UserError(f'{archive} is not the official file: {fault}; {ways}')
    try:
        unpack(archive, {f'{part.inside}/': f'{part.place}/'}, root, root / 'downloads' / f'{archive.name}.unpacking')
    except DamagedArchiveError as error:
        raise UserError(f'{archive}: {error}; {ways}') from error


def _find(folder: Path, part: Part) -> Path | None:
    """Return the folder of a part: ``datasets/imgs/pascal``, or the end of it, such as ``pascal``."""
    steps = Path(part.inside).parts
    places = [folder.joinpath(*steps[n:]) for n in range(len(steps))] + sorted(folder.glob(f'*/{part.inside}'))
    return next((place for place in places if place.is_dir() and _files(place, part.suffix)), None)


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix == suffix and p.is_file() and not p.name.startswith('.'))


def _copy(folder: Path, part: Part, root: Path) -> None:
    place = root / part.place
    missing = [path for path in _files(folder, part.suffix) if file_size(place / path.name) != file_size(path)]
    require_space({place: sum(file_size(path) for path in missing)})
    place.mkdir(parents=True, exist_ok=True)
    log(f'copying {folder}')
    with progress_bar(f'copy {folder.name}', len(missing), unit=' files') as bar:
        for path in missing:
            with atomic_path(place / path.name, sync=False) as copy:
                shutil.copyfile(path, copy)
            bar.update()


def _write_lists(place: Path, folders: Sequence[Path]) -> list[str]:
    """Write the lists of names without suffixes, from ``SPLIT.txt`` or ``SPLITImgSet.mat``; return what is missing."""
    absent = []
    for split in SPLITS:
        files = [folder / name for folder in folders for name in (f'{split}.txt', f'{split}ImgSet.mat')]
        source = next((path for path in files if path.is_file()), None)
        if source is None:
            absent.append(f'{split}.txt or {split}ImgSet.mat')
            continue
        names = _names_in(source)
        with atomic_path(place / f'{split}.txt') as path:
            path.write_text(''.join(f'{Path(name).stem}\n' for name in names), encoding='utf-8')
    return absent


def _names_in(path: Path) -> list[str]:
    try:
        if path.suffix != '.mat':  # some lists name the mask after the image
            return [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
        content = loadmat(str(path), squeeze_me=True)
        (names,) = (value for key, value in content.items() if not key.startswith('__'))
        return [str(name) for name in np.ravel(names)]  # of one cell, loadmat makes its content
    except Exception as error:  # loadmat has no error of its own: a damaged file raises whatever comes first
        raise UserError(f'{path} is not a list of images: {type(error).__name__}, {error}; fetch it again') from error
