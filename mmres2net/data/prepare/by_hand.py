"""What no address gives and the user brings: found in the folder of ``--from``, and laid out as the configs read it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mmres2net.data.prepare.archives import DamagedArchiveError, unpack
from mmres2net.errors import UserError
from mmres2net.fetch.progress import log, progress_bar
from mmres2net.files import atomic_path, file_size, require_space

SPLITS = ('train', 'val', 'test')
Collect = Callable[[Sequence[Path], Path], list[str]]


@dataclass(frozen=True)
class ByHand:
    """What the user has to bring.

    Attributes:
        steps: What to fetch from where, and what to do with it, a line each; ``{root}`` stands for the root.
        collect: Given the folders to look in and the root, lays out what it finds and returns what is not there; None
            where the user lays everything out.
    """

    steps: tuple[str, ...]
    collect: Collect | None = None


@dataclass(frozen=True)
class Part:
    """Files that lie in one folder of what the user fetches.

    Attributes:
        archive: A zip file that has the folder; empty where the user has to unpack it, as with rar files.
        inside: The folder, in the archive or where that was unpacked.
        suffix: Of its files.
        place: Where they go, below the root.
    """

    archive: str
    inside: str
    suffix: str
    place: str


def from_parts(*parts: Part) -> Collect:
    """Return what unpacks or copies these parts; files that are there with the right size stay.

    What it returns raises UserError where an archive is damaged or there is too little room, and OSError where a file
    cannot be written; a later call continues.
    """
    return partial(_lay_out, parts)


def _lay_out(parts: Sequence[Part], folders: Sequence[Path], root: Path) -> list[str]:
    absent = []
    for part in parts:
        archive = next((path for folder in folders if part.archive and (path := folder / part.archive).is_file()), None)
        unpacked = next((found for folder in folders if (found := _find(folder, part))), None)
        if archive is not None:
            _unpack(archive, part, root)
        elif unpacked is not None:
            _copy(unpacked, part, root)
        else:
            what = f'{part.archive} or a folder {part.inside}' if part.archive else f'a folder {part.inside}'
            absent.append(f'{what} with {part.suffix} files')
    return absent


def _unpack(archive: Path, part: Part, root: Path) -> None:
    log(f'unpacking {part.inside} of {archive}')
    journal = root / 'downloads' / f'{archive.name}.unpacking'
    try:
        unpack(archive, {f'{part.inside}/': f'{part.place}/'}, root, journal)
    except DamagedArchiveError as error:
        raise UserError(f'{archive} is damaged: {error}; fetch it again') from error


def _find(folder: Path, part: Part) -> Path | None:
    """Return the folder of a part, wherever unpacking began: ``imgs/pascal`` or ``pascal`` will do."""
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


def from_lists(place: str) -> Collect:
    """Return what writes ``train.txt``, ``val.txt`` and ``test.txt`` into ``place``, below the root: a name a line.

    It reads ``SPLIT.txt`` or ``SPLITImgSet.mat``; names lose their suffix. It raises UserError where a list cannot be
    read.
    """
    return partial(_write_lists, place)


def _write_lists(place: str, folders: Sequence[Path], root: Path) -> list[str]:
    absent = []
    for split in SPLITS:
        files = [folder / name for folder in folders for name in (f'{split}.txt', f'{split}ImgSet.mat')]
        source = next((path for path in files if path.is_file()), None)
        if source is None:
            absent.append(f'{split}.txt or {split}ImgSet.mat')
            continue
        names = _names_of_mat(source) if source.suffix == '.mat' else _names_of_text(source)
        with atomic_path(root / place / f'{split}.txt') as path:
            path.write_text(''.join(f'{Path(name).stem}\n' for name in names), encoding='utf-8')
    return absent


def _names_of_text(path: Path) -> list[str]:
    """Return the first word of each line: some lists name the mask after the image."""
    return [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def _names_of_mat(path: Path) -> list[str]:
    try:
        content = loadmat(str(path), squeeze_me=True)
        (names,) = (value for key, value in content.items() if not key.startswith('__'))
        return [str(name) for name in np.ravel(names)]  # of one cell, loadmat makes its content
    except Exception as error:  # loadmat has no error of its own: a damaged file raises whatever comes first
        raise UserError(f'{path} is no list of images: {type(error).__name__}, {error}; fetch it again') from error


def sort_by_suffix(place: str) -> Callable[[Path], None]:
    """Return what moves the files of ``place``, below the root: .jpg into ``images``, .png into ``masks``."""
    return partial(_sort, place)


def _sort(place: str, root: Path) -> None:
    for suffix, name in (('.jpg', 'images'), ('.png', 'masks')):
        folder = root / place / name
        folder.mkdir(exist_ok=True)
        for path in _files(root / place, suffix):
            path.replace(folder / path.name)
