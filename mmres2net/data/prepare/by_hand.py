"""Files that the user has to fetch: found in the folder of ``--from``, and put where the configs read them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mmres2net.data.prepare.archives import DamagedArchiveError, unpack
from mmres2net.errors import UserError
from mmres2net.fetch.progress import BLOCK, log, progress_bar
from mmres2net.files import atomic_path, file_size, require_space

SPLITS = ('train', 'val', 'test')
Collect = Callable[[Sequence[Path], Path], list[str]]


@dataclass(frozen=True)
class ByHand:
    """Files that the user has to fetch.

    Attributes:
        steps: What to fetch from where, and what to do with it, a line each; ``{root}`` stands for the root.
        collect: Takes the folders to search and the root, puts the files it finds in place and returns what is missing;
            None: the user puts everything in place.
    """

    steps: tuple[str, ...]
    collect: Collect | None = None


@dataclass(frozen=True)
class Part:
    """Files of one folder that the user fetches.

    Attributes:
        archive: A zip file that has the folder; '' if the user has to unpack it, as with rar files.
        inside: The folder, in the archive or in what was unpacked from it.
        suffix: Suffix of its files.
        place: The folder that they go to, below the root.
        md5: MD5 sum of the archive; '' if it is not known.
    """

    archive: str
    inside: str
    suffix: str
    place: str
    md5: str = ''


def from_parts(*parts: Part) -> Collect:
    """Return a function that unpacks or copies these parts; files that are there with the right size stay.

    It raises UserError if an archive is damaged or there is too little space, and OSError if a file cannot be written.
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
    ways = 'fetch it again, or unpack it with another program and name the folder with --from'
    if part.md5 and (md5 := _md5(archive)) != part.md5:
        raise UserError(f'{archive} is not the official file: its MD5 is {md5}, not {part.md5}; {ways}')
    try:
        unpack(archive, {f'{part.inside}/': f'{part.place}/'}, root, root / 'downloads' / f'{archive.name}.unpacking')
    except DamagedArchiveError as error:
        raise UserError(f'{archive}: {error}; {ways}') from error


def _md5(path: Path) -> str:
    total = hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


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


def from_lists(place: str) -> Collect:
    """Return a function that writes ``train.txt``, ``val.txt`` and ``test.txt`` into ``place``, below the root.

    It reads ``SPLIT.txt`` or ``SPLITImgSet.mat``, removes the suffixes of names, and raises UserError if a list cannot
    be read.
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
    try:
        return [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f'{path} is not a list of images: it is not text; fetch it again') from error


def _names_of_mat(path: Path) -> list[str]:
    try:
        content = loadmat(str(path), squeeze_me=True)
        (names,) = (value for key, value in content.items() if not key.startswith('__'))
        return [str(name) for name in np.ravel(names)]  # of one cell, loadmat makes its content
    except Exception as error:  # loadmat has no error of its own: a damaged file raises whatever comes first
        raise UserError(f'{path} is not a list of images: {type(error).__name__}, {error}; fetch it again') from error


def sort_by_suffix(place: str) -> Callable[[Path], None]:
    """Return a function that moves the files of ``place``: .jpg into ``images``, .png into ``masks``."""
    return partial(_sort, place)


def _sort(place: str, root: Path) -> None:
    for suffix, name in (('.jpg', 'images'), ('.png', 'masks')):
        folder = root / place / name
        folder.mkdir(exist_ok=True)
        for path in _files(root / place, suffix):
            path.replace(folder / path.name)
