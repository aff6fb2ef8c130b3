"""Types of the table of data sets: archives, files that the user fetches, and checks of completeness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmres2net.data.prepare.by_hand import ByHand
from mmres2net.data.prepare.checks import Check
from mmres2net.fetch.download import Remote


@dataclass(frozen=True)
class Archive:
    """One zip or tar file.

    Attributes:
        name: File name.
        urls: URLs, in the order in which they are tried.
        size: Bytes.
        md5: MD5 sum in hexadecimal digits; '' if only SHA-256 is known.
        places: Beginning of a member's name to the path below the root that replaces it; other members stay packed.
        unpacked: Estimated bytes of the unpacked files.
        checks: Checks of the unpacked files.
        sha256: SHA-256 sum.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str
    places: Mapping[str, str]
    unpacked: int
    checks: tuple[Check, ...]
    sha256: str = ''

    @property
    def remote(self) -> Remote:
        """The file to download."""
        way = 'or download the file in another way, and name its folder with --from DIR'
        algorithm = 'md5' if self.md5 else 'sha256'
        return Remote(self.name, self.urls, self.size, self.md5 or self.sha256, algorithm, ways_out=(way,))


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        title: Description in one line.
        home: The web page with its terms of use.
        archives: Its archives.
        checks: Checks that a complete data set passes; then no archive is needed.
        data: The folder below the root to pass to ``--data``.
        config: A shipped config that reads it; '' for none.
        finish: Called with the root after all archives are unpacked.
        by_hand: Files that the user has to fetch, in addition to or instead of archives.
    """

    title: str
    home: str
    archives: tuple[Archive, ...]
    checks: tuple[Check, ...]
    data: str
    config: str = ''
    finish: Callable[[Path], None] | None = None
    by_hand: ByHand | None = None
