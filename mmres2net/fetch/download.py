"""Download large files over HTTP: resumed after an interruption, from the first working URL, and verified."""

import hashlib
import re
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmres2net.errors import UserError
from mmres2net.files import file_size, size_text

TRIES = 5  # failures in a row until the next URL; after one that transferred bytes the count starts again
PAUSE = 2.0  # seconds before the second try, doubled before each further one
TIMEOUT = 30.0  # seconds without an answer that count as a failure
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status: worth another try at the same URL
BLOCK = 2**20  # bytes


@dataclass(frozen=True)
class Remote:
    """A file to download, and what identifies it."""

    name: str  # file name
    urls: tuple[str, ...]  # in the order of trying
    size: int | None  # bytes; None: unknown
    digest: str  # its checksum in hexadecimal digits, or the first of them; empty: unknown
    algorithm: str = 'md5'  # of the checksum, as hashlib names it
    ways_out: tuple[str, ...] = ()  # what the user can do if no URL works, besides trying again later


def log(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def progress_bar(
    title: str, total: int | None = None, *, items: Iterable[Any] | None = None, start: int = 0, unit: str = 'B'
) -> tqdm:
    """Return a bar on a terminal's stderr, of ``items`` or ``total`` units (None: unknown), ``start`` of them done."""
    # Python's idea of the size: tqdm draws nothing on a terminal that does not know its own.
    size = shutil.get_terminal_size()
    place = {'disable': None, 'ncols': size.columns, 'nrows': size.lines}
    return tqdm(items, desc=title, total=total, initial=start, unit=unit, unit_scale=unit == 'B', **place)


class _InterruptedError(Exception):
    """The transfer was interrupted; another try may resume it."""


class _UnusableError(Exception):
    """This URL does not give the file."""


def damage(path: Path, remote: Remote) -> str:
    """Return how the file at ``path`` differs from ``remote``; empty if it does not."""
    size = file_size(path)
    if remote.size is not None and size != remote.size:
        return f'it has {size:,} bytes, not {remote.size:,}'
    if not remote.digest:
        return ''
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    with path.open('rb') as file, progress_bar(f'check {remote.name}', size) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    found = digest.hexdigest()[: len(remote.digest)]
    return '' if found == remote.digest else f'its {remote.algorithm.upper()} is {found}, not {remote.digest}'


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file into ``folder`` and return its path.

    Until it is complete and verified it is called NAME.part. An existing part is resumed, unless no checksum can tell
    whether it was a part of this file. A download with a wrong checksum is removed, and the next URL is tried. A
    UserError says that no URL gave the file, an OSError that it cannot be written; what was transferred is kept.
    """
    part, failures = folder / f'{remote.name}.part', []
    if not remote.digest:
        part.unlink(missing_ok=True)
    for url in remote.urls:
        try:
            for _ in range(1 + part.exists()):  # it may be a part of another file
                _download(url, part, remote)
                if not (fault := damage(part, remote)):
                    return part.replace(folder / remote.name)
                part.unlink()
            raise _UnusableError(f'damaged, {fault}')
        except _UnusableError as error:
            log(f'  {error}')
            failures.append(f'{url}: {error}')
    later = f'run the command again later; the download resumes from {folder}'
    ways_out = (later, *remote.ways_out, 'behind a proxy, set http_proxy and https_proxy')
    listed = [f'  {failure}' for failure in failures] + [f'  - {way}' for way in ways_out]
    raise UserError('\n'.join([f'{remote.name} cannot be downloaded:', *listed]))


def _download(url: str, part: Path, remote: Remote) -> None:
    if remote.size is not None and file_size(part) > remote.size:
        part.unlink()
    failed = 0
    while (have := max(file_size(part), 0)) != remote.size:
        try:
            return _transfer(url, part, have, remote)
        except _InterruptedError as error:
            now = max(file_size(part), 0)
            failed = 1 if now > have else failed + 1
            of = f' of {size_text(remote.size)}' if remote.size is not None else ''
            text = f'{error}, after {size_text(now)}{of}'
            if failed >= TRIES:
                raise _UnusableError(f'{text}; given up after {failed} tries') from error
            pause = PAUSE * 2 ** (failed - 1)
            log(f'  {text}; next try in {pause:.0f} s')
            time.sleep(pause)


def _transfer(url: str, part: Path, have: int, remote: Remote) -> None:
    with _open(url, have) as reply:
        start, total = _range_of(reply, have)
        if None not in (total, remote.size) and total != remote.size:
            raise _UnusableError(f'it offers {total:,} bytes, not {remote.size:,}: this is another file')
        total = total if remote.size is None else remote.size
        if total is None and not remote.digest:
            raise _UnusableError('it does not say how large the file is, and no checksum is known to verify it')
        if not have:
            log(f'downloading {url}' + (f' ({size_text(total)})' if total is not None else ''))
        elif not start:
            log('  this server cannot resume a download: it starts again')
        with part.open('ab' if start else 'wb') as file, progress_bar(part.stem, total, start=start) as bar:
            while block := _read(reply):
                start += len(block)
                if total is not None and start > total:
                    raise _UnusableError(f'it sends more than {total:,} bytes')
                file.write(block)
                file.flush()  # a full disk is reported at once
                bar.update(len(block))
    if total is not None and start < total:
        raise _InterruptedError('the connection was cut')


def _open(url: str, have: int) -> HTTPResponse:
    headers = {'User-Agent': 'mmres2net', 'Accept-Encoding': 'identity'}
    if have:
        headers['Range'] = f'bytes={have}-'
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # this range is beyond the end: a part of another file, or all of this one
            return _open(url, 0)
        text = f'HTTP {error.code} {error.reason}'
        raise (_InterruptedError(text) if error.code in TEMPORARY else _UnusableError(text)) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, 'reason', error)
        if isinstance(reason, socket.gaierror) and not have:
            raise _UnusableError(f'{_words(reason)}: unknown host, or no network') from error
        raise _InterruptedError(_words(reason)) from error


def _range_of(reply: HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return where in the file the reply starts, and how many bytes the file has, if the server says so."""
    if reply.status != 206:
        length = reply.headers.get('Content-Length') or ''
        return 0, int(length) if length.isdecimal() else None
    given = reply.headers.get('Content-Range') or ''
    found = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', given)
    if found is None or int(found[1]) != have:
        raise _UnusableError(f'it answers with Content-Range {given!r} to bytes={have}-')
    return have, None if found[2] == '*' else int(found[2])


def _read(reply: HTTPResponse) -> bytes:
    try:
        return reply.read1(BLOCK)  # not read(): an interrupted connection then loses nothing
    except (OSError, HTTPException) as error:
        raise _InterruptedError(_words(error)) from error


def _words(error: object) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__
