"""The data sets of ``datasets.yml``: archives, what the user has to fetch, and checks of completeness."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from mmres2net.data.prepare.finish import make_trainaug
from mmres2net.fetch.download import Remote

TABLE = Path(__file__).with_name('datasets.yml')


@dataclass(frozen=True)
class Check:
    """So many files are there, and each has its companions. Hidden files do not count.

    Attributes:
        source: A path below the root: a pattern, such as ``coco/val2017/*.jpg`` (with a slash at its end, of folders),
            a text file (``.txt``) with a list of names, or another file, which must not be empty.
        count: The number of files or names.
        files: The files that each of them must have, below the root, with ``{}`` for the name without suffix.
    """

    source: str
    count: int = 1
    files: tuple[str, ...] = ()

    def names(self, root: Path) -> list[str]:
        """Return the names that are there."""
        if '*' not in self.source and not ((root / self.source).is_file() and (root / self.source).stat().st_size):
            return []
        if self.source.endswith('.txt'):
            return (root / self.source).read_text(encoding='utf-8', errors='replace').split()
        return [Path(path).stem for path in glob(self.source, root_dir=root)]

    def fault(self, root: Path) -> str:
        """Return what is wrong below ``root``; empty if nothing is."""
        names, path = self.names(root), f'{root}/{self.source}'
        if not names and '*' not in self.source:
            return f'{path} is missing or empty'
        if len(names) != self.count:
            return f'{path}: {len(names):,} of {self.count:,} are there'
        places = (root / files.format(name) for name in names for files in self.files)
        missing = [place for place in places if not place.is_file()]
        return f'{path}: {len(missing):,} files for it are missing, such as {missing[0]}' if missing else ''


@dataclass(frozen=True)
class Archive:
    """One zip or tar file."""

    name: str  # file name
    places: Mapping[str, str]  # see `archives.unpack`
    checks: tuple[Check, ...]  # of the unpacked files
    urls: tuple[str, ...] = ()  # in the order in which they are tried; none: the user has to fetch it
    size: int = 0  # bytes; 0: not known
    unpacked: int = 0  # estimated bytes of the unpacked files; 0: as the archive
    md5: str = ''  # in hexadecimal digits; empty if only SHA-256 is known, or none
    sha256: str = ''

    @property
    def remote(self) -> Remote:
        """The file to download."""
        way = 'or download the file in another way, and name its folder with --from DIR'
        algorithm = 'md5' if self.md5 else 'sha256'
        return Remote(self.name, self.urls, self.size or None, self.md5 or self.sha256, algorithm, ways_out=(way,))


@dataclass(frozen=True)
class DataSet:
    """A data set: archives to unpack, and what the user has to do."""

    title: str  # description in one line
    home: str  # the web page with its terms of use
    checks: tuple[Check, ...]  # a complete data set passes them; then no archive is needed
    data: str  # the folder below the root to pass to --data
    archives: tuple[Archive, ...] = ()
    config: str = ''  # a shipped config that reads it
    finish: Callable[[Path], None] | None = None  # called with the root after all archives are unpacked
    steps: tuple[str, ...] = ()  # what the user has to fetch from where, and to do with it; {root} stands for the root
    lists: str = ''  # the folder below the root for train.txt, val.txt and test.txt, which the user has to fetch


def _read_table() -> dict[str, DataSet]:
    class Loader(yaml.SafeLoader):
        """Makes an instance of the class that a tag names, and tuples instead of lists."""

    def constructor(kind: type) -> Callable[[Any, Any], Any]:
        return lambda loader, node: kind(**loader.construct_mapping(node, deep=True))

    for kind in (DataSet, Archive, Check):
        Loader.add_constructor(f'!{kind.__name__}', constructor(kind))
    Loader.add_constructor('tag:yaml.org,2002:seq', lambda loader, node: tuple(loader.construct_sequence(node, True)))
    table: dict[str, DataSet] = yaml.load(TABLE.read_text(encoding='utf-8'), Loader)
    return {**table, 'voc12aug': replace(table['voc12aug'], finish=make_trainaug)}


DATASETS = _read_table()
