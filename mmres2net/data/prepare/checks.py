"""Checks of a complete data set on disk: numbers of files, lists with all their files, pairs of images and masks.

``fault(root)`` returns what is wrong below a folder, else ''; ``summary()`` a line for the report of a complete set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Files:
    """A folder below the root holds ``count`` files that end in ``suffix``; hidden files do not count."""

    folder: str
    suffix: str
    count: int

    def found(self, root: Path) -> int:
        folder = root / self.folder
        if not folder.is_dir():
            return 0
        with os.scandir(folder) as entries:
            return sum(entry.name.endswith(self.suffix) and not entry.name.startswith('.') for entry in entries)

    def fault(self, root: Path) -> str:
        found = self.found(root)
        if found == self.count:
            return ''
        return f'{root / self.folder} has {found:,} of {self.count:,} {self.suffix} files'

    def summary(self) -> str:
        return f'{self.count:,} {self.suffix} files in {self.folder}'


@dataclass(frozen=True)
class Listed:
    """A text file below the root lists ``count`` names, and each has its ``files``, with ``{}`` for the name."""

    path: str
    count: int
    files: tuple[str, ...]

    def fault(self, root: Path) -> str:
        path = root / self.path
        if not path.is_file():
            return f'{path} is missing'
        names = path.read_text(encoding='utf-8', errors='replace').split()
        if len(names) != self.count:
            return f'{path} lists {len(names):,} images, not {self.count:,}'
        places = [root / files.format(name) for name in names for files in self.files]
        missing = [place for place in places if not place.is_file()]
        return f'{len(missing):,} files that {path} lists are missing, such as {missing[0]}' if missing else ''

    def summary(self) -> str:
        return f'{self.count:,} images in {self.path}'


@dataclass(frozen=True)
class Present:
    """A file is there, below the root, and is not empty."""

    path: str

    def fault(self, root: Path) -> str:
        path = root / self.path
        return '' if path.is_file() and path.stat().st_size else f'{path} is missing or empty'

    def summary(self) -> str:
        return self.path


@dataclass(frozen=True)
class Masks:
    """Each image of one folder below the root has a mask of the same name in another; suffixes begin with a dot."""

    images: str
    image_suffix: str
    masks: str
    mask_suffix: str

    def fault(self, root: Path) -> str:
        names = _stems(root / self.images, self.image_suffix)
        bare = sorted(names - _stems(root / self.masks, self.mask_suffix))
        where = f'{root / self.images} have no mask in {root / self.masks}'
        return f'{len(bare):,} images of {where}, such as {bare[0]}' if bare else ''

    def summary(self) -> str:
        return f'a mask in {self.masks} for each image in {self.images}'


def _stems(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in folder.glob(f'*{suffix}') if not path.name.startswith('.')}


@dataclass(frozen=True)
class Classes:
    """A folder below the root holds ``classes`` folders, with ``count`` files that end in ``suffix`` together."""

    folder: str
    suffix: str
    classes: int
    count: int

    def fault(self, root: Path) -> str:
        place = root / self.folder
        names = [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
        found = sum(Files(f'{self.folder}/{name}', self.suffix, 0).found(root) for name in names)
        if (len(names), found) == (self.classes, self.count):
            return ''
        return (
            f'{place} has {len(names):,} of {self.classes:,} class folders, '
            f'with {found:,} of {self.count:,} {self.suffix} files'
        )

    def summary(self) -> str:
        return f'{self.count:,} {self.suffix} files in {self.classes:,} folders of {self.folder}'


Check = Files | Listed | Present | Masks | Classes
