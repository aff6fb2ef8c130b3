"""What a row of the table of data sets says: archives, what the user brings, and what has to be there in the end."""

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
        urls: Where it is, in the order of trying.
        size: Bytes.
        md5: Its MD5 sum, in hexadecimal digits; empty where only the other is known.
        places: Beginning of a member's name to the path below the root that replaces it; other members stay packed.
        unpacked: Bytes to allow for what is unpacked, before the archive is there to tell.
        checks: What is there once it is unpacked.
        sha256: Its SHA-256 sum.
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
        """The file to be fetched."""
        way = 'or fetch the file by other means, and name its folder with --from DIR'
        algorithm = 'md5' if self.md5 else 'sha256'
        return Remote(self.name, self.urls, self.size, self.md5 or self.sha256, algorithm, ways_out=(way,))


@dataclass(frozen=True)
class DataSet:
    """Some archives, and what the user brings, and what becomes of them.

    Attributes:
        title: What it is, in a line.
        home: The page that tells its terms.
        archives: What it is made of.
        checks: What a complete one has; an archive is not needed where these hold.
        data: The folder below the root that ``--data`` takes.
        config: A shipped config that reads it; nothing where none does yet.
        finish: Called with the root when all archives are unpacked.
        by_hand: What the user has to bring, beside or instead of archives.
    """

    title: str
    home: str
    archives: tuple[Archive, ...]
    checks: tuple[Check, ...]
    data: str
    config: str = ''
    finish: Callable[[Path], None] | None = None
    by_hand: ByHand | None = None
