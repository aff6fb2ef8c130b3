"""Large files over HTTP: continued where they broke off, from the first address that has them, and verified."""

from __future__ import annotations

import hashlib
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from mmres2net.errors import UserError
from mmres2net.fetch.progress import BLOCK, log, progress_bar, write
from mmres2net.files import file_size, size_text

PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try at the same address


@dataclass(frozen=True)
class Remote:
    """A file to be fetched, and what tells that it is the right one.

    Attributes:
        name: File name.
        urls: Where it is, in the order of trying.
        size: Bytes; None: as many as the server says.
        digest: Its checksum in hexadecimal digits, or the first of them; empty where none is known.
        algorithm: Of the checksum, as ``hashlib`` names it.
        ways_out: What the user can do where no address gives it, beside trying again later.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None
    digest: str
    algorithm: str = 'md5'
    ways_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patience:
    """How long to insist.

    Attributes:
        tries: Failures in a row until the next address is taken; one that brought some bytes counts as the first.
        pause: Seconds before the second try; each further one waits twice as long.
        timeout: Seconds without an answer that count as a failure.
    """

    tries: int = 5
    pause: float = 2.0
    timeout: float = 30.0


class _CutError(Exception):
    """The transfer broke off; another try may go on."""


class _UselessError(Exception):
    """This address will not do."""


def damage(path: Path, remote: Remote) -> str:
    """Return how the file at ``path`` differs from the one to be fetched; nothing if it is that."""
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


def fetch(remote: Remote, folder: Path, patience: Patience) -> Path:
    """Download a file into ``folder`` and return its path.

    Until it is whole and verified it is called NAME.part; a part that is there is continued, unless there is no
    checksum to tell whether it was a part of this file. A download with another size or checksum is removed and begun
    anew, at the next address and then once more at the same.

    Raises:
        UserError: No address gave the file; what came is kept.
        OSError: The file cannot be written; what came is kept.
    """
    part = folder / f'{remote.name}.part'
    if not remote.digest:
        part.unlink(missing_ok=True)
    addresses, failures, damaged = list(remote.urls), [], set()
    while addresses:
        url = addresses.pop(0)
        try:
            size = _offered(url, patience) if remote.size is None else remote.size
            log(f'fetching {url} ({size_text(size)})')
            _download(url, part, size, patience)
            fault = damage(part, remote)
        except _UselessError as error:
            log(f'  {error}')
            failures.append(f'{url}: {error}')
            continue
        if not fault:
            return part.replace(folder / remote.name)
        part.unlink()
        log(f'{remote.name} is damaged: {fault}; removed')
        if url not in damaged:
            damaged.add(url)
            addresses.append(url)
        failures.append(f'{url}: damaged, {fault}')
    raise UserError(_no_way(remote, folder, failures))


def _no_way(remote: Remote, folder: Path, failures: list[str]) -> str:
    later = f'run the same command later: it continues what is in {folder}'
    ways_out = (later, *remote.ways_out, 'behind a proxy, set http_proxy and https_proxy')
    return '\n'.join(
        [
            f'{remote.name} cannot be fetched:',
            *(f'  {failure}' for failure in failures),
            *(f'  - {way}' for way in ways_out),
        ]
    )


def _offered(url: str, patience: Patience) -> int:
    """Return the bytes that the file at ``url`` has, as the server says."""
    for failed in range(1, patience.tries + 1):
        try:
            with _answer(url, 0, patience.timeout) as reply:
                length = reply.headers.get('Content-Length')
            break
        except _CutError as error:
            if failed == patience.tries:
                raise _UselessError(f'{error}; given up after {failed} tries') from error
            time.sleep(patience.pause * 2 ** (failed - 1))
    if length is None or not length.isdigit():
        raise _UselessError('it does not say how large the file is, so nothing would tell whether all of it came')
    return int(length)


def _download(url: str, part: Path, size: int, patience: Patience) -> None:
    """Bring the file at ``part`` to ``size`` bytes."""
    if file_size(part) > size:
        part.unlink()
    failed = 0
    while (have := max(file_size(part), 0)) < size:
        try:
            _transfer(url, part, size, patience.timeout)
            reason = 'the connection was cut'
        except _CutError as error:
            reason = str(error)
        now = max(file_size(part), 0)
        if now >= size:
            return
        failed = 1 if now > have else failed + 1
        text = f'{reason}, after {size_text(now)} of {size_text(size)}'
        if failed >= patience.tries:
            raise _UselessError(f'{text}; given up after {failed} tries')
        pause = patience.pause * 2 ** (failed - 1)
        log(f'  {text}; next try in {pause:.0f} s')
        time.sleep(pause)


def _transfer(url: str, part: Path, size: int, timeout: float) -> None:
    """Append to ``part`` what one connection gives."""
    have = max(file_size(part), 0)
    with _answer(url, have, timeout) as reply:
        begin = _begin(reply, have, size)
        if have and not begin:
            log('  this address cannot continue a file: it begins anew')
        with part.open('ab' if begin else 'wb') as file, progress_bar(part.stem, size, start=begin) as bar:
            for block in _blocks(reply):
                begin += len(block)
                if begin > size:
                    raise _UselessError(f'it sends more than {size:,} bytes')
                write(file, block)
                bar.update(len(block))


def _answer(url: str, have: int, timeout: float) -> HTTPResponse:
    headers = {
        'User-Agent': 'mmres2net',
        'Accept-Encoding': 'identity',
        **({'Range': f'bytes={have}-'} if have else {}),
    }
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        text = f'HTTP {error.code} {error.reason}'
        raise (_CutError(text) if error.code in PASSING else _UselessError(text)) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, 'reason', error)
        if isinstance(reason, socket.gaierror) and not have:
            raise _UselessError(f'{_reason(reason)}: unknown host, or no network') from error
        raise _CutError(_reason(reason)) from error


def _reason(error: object) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


def _begin(reply: HTTPResponse, have: int, size: int) -> int:
    """Return the place in the file where the reply begins; it must be of a file with ``size`` bytes."""
    begin, total = 0, reply.headers.get('Content-Length')
    if reply.status == 206:
        found = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', reply.headers.get('Content-Range') or '')
        if found is None or int(found[1]) != have:
            raise _UselessError(
                f'it answers with Content-Range {reply.headers.get("Content-Range")!r} to bytes={have}-'
            )
        begin, total = have, None if found[2] == '*' else found[2]
    if total is not None and int(total) != size:
        raise _UselessError(f'it offers {int(total):,} bytes, not {size:,}: this is another file')
    return begin


def _blocks(reply: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            # read1: what has come is written at once, so that a broken connection costs nothing.
            block = reply.read1(BLOCK)
        except (OSError, HTTPException) as error:
            raise _CutError(_reason(error)) from error
        if not block:
            return
        yield block
