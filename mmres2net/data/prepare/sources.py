"""The data sets of ``datasets.yml``: archives, files that the user fetches, and checks of completeness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mmres2net.data.prepare.by_hand import ByHand, Part
from mmres2net.data.prepare.checks import Check, Classes, Files, Listed, Masks, Present
from mmres2net.data.prepare.sbd import make_trainaug
from mmres2net.fetch.download import Remote

TABLE = Path(__file__).with_name('datasets.yml')


@dataclass(frozen=True)
class Archive:
    """One zip or tar file."""

    name: str  # file name
    urls: tuple[str, ...]  # in the order in which they are tried
    size: int  # bytes
    places: Mapping[str, str]  # see `archives.unpack`
    unpacked: int  # estimated bytes of the unpacked files
    checks: tuple[Check, ...]  # of the unpacked files
    md5: str = ''  # in hexadecimal digits; empty if only SHA-256 is known
    sha256: str = ''

    @property
    def remote(self) -> Remote:
        """The file to download."""
        way = 'or download the file in another way, and name its folder with --from DIR'
        algorithm = 'md5' if self.md5 else 'sha256'
        return Remote(self.name, self.urls, self.size, self.md5 or self.sha256, algorithm, ways_out=(way,))


@dataclass(frozen=True)
class DataSet:
    """A data set: archives to fetch and unpack, or files that the user has to fetch, or both."""

    title: str  # description in one line
    home: str  # the web page with its terms of use
    checks: tuple[Check, ...]  # a complete data set passes them; then no archive is needed
    data: str  # the folder below the root to pass to --data
    archives: tuple[Archive, ...] = ()
    config: str = ''  # a shipped config that reads it
    finish: Callable[[Path], None] | None = None  # called with the root after all archives are unpacked
    by_hand: ByHand | None = None


def _read_table() -> dict[str, DataSet]:
    class Loader(yaml.SafeLoader):
        """Makes an instance of the class that a tag names, and tuples instead of lists."""

    def constructor(kind: type) -> Callable[[Any, Any], Any]:
        return lambda loader, node: kind(**loader.construct_mapping(node, deep=True))

    for kind in (DataSet, Archive, ByHand, Part, Classes, Files, Listed, Masks, Present):
        Loader.add_constructor(f'!{kind.__name__}', constructor(kind))
    Loader.add_constructor('tag:yaml.org,2002:seq', lambda loader, node: tuple(loader.construct_sequence(node, True)))
    table: dict[str, DataSet] = yaml.load(TABLE.read_text(encoding='utf-8'), Loader)
    return {**table, 'voc12aug': replace(table['voc12aug'], finish=make_trainaug)}


DATASETS = _read_table()
