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

from mmres2net.data.prepare.disk import BLOCK, progress, say, size_of, size_text, write
from mmres2net.data.prepare.sources import Archive
from mmres2net.errors import UserError

PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try at the same address


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


def damage(path: Path, archive: Archive) -> str:
    """Return how the file at ``path`` differs from the archive; nothing if it is the archive."""
    size = size_of(path)
    if size != archive.size:
        return f'it has {size:,} bytes, not {archive.size:,}'
    digest = hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file, progress(f'check {archive.name}', size) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return '' if digest.hexdigest() == archive.md5 else f'its MD5 is {digest.hexdigest()}, not {archive.md5}'


def fetch(archive: Archive, folder: Path, patience: Patience) -> Path:
    """Download an archive into ``folder`` and return its path.

    Until it is whole and verified it is called NAME.part; a part that is there is continued. A download with another
    size or MD5 is removed and begun anew, at the next address and then once more at the same.

    Raises:
        UserError: No address gave the archive; what came is kept.
        OSError: The file cannot be written; what came is kept.
    """
    part = folder / f'{archive.name}.part'
    addresses, failures, damaged = list(archive.urls), [], set()
    while addresses:
        url = addresses.pop(0)
        say(f'fetching {url} ({size_text(archive.size)})')
        try:
            _download(url, part, archive.size, patience)
            fault = damage(part, archive)
        except _UselessError as error:
            say(f'  {error}')
            failures.append(f'{url}: {error}')
            continue
        if not fault:
            return part.replace(folder / archive.name)
        part.unlink()
        say(f'{archive.name} is damaged: {fault}; removed')
        if url not in damaged:
            damaged.add(url)
            addresses.append(url)
        failures.append(f'{url}: damaged, {fault}')
    raise UserError(_no_way(archive, folder, failures))


def _no_way(archive: Archive, folder: Path, failures: list[str]) -> str:
    listed = '\n'.join(f'  {failure}' for failure in failures)
    return (
        f'{archive.name} cannot be fetched:\n{listed}\n'
        f'  - run the same command later: it continues what is in {folder}\n'
        '  - or fetch the file by other means, and name its folder with --from DIR\n'
        '  - behind a proxy, set http_proxy and https_proxy'
    )


def _download(url: str, part: Path, size: int, patience: Patience) -> None:
    """Bring the file at ``part`` to ``size`` bytes."""
    if size_of(part) > size:
        part.unlink()
    failed = 0
    while (have := max(size_of(part), 0)) < size:
        try:
            _transfer(url, part, size, patience.timeout)
            reason = 'the connection was cut'
        except _CutError as error:
            reason = str(error)
        now = max(size_of(part), 0)
        if now >= size:
            return
        failed = 1 if now > have else failed + 1
        text = f'{reason}, after {size_text(now)} of {size_text(size)}'
        if failed >= patience.tries:
            raise _UselessError(f'{text}; given up after {failed} tries')
        pause = patience.pause * 2 ** (failed - 1)
        say(f'  {text}; next try in {pause:.0f} s')
        time.sleep(pause)


def _transfer(url: str, part: Path, size: int, timeout: float) -> None:
    """Append to ``part`` what one connection gives."""
    have = max(size_of(part), 0)
    with _answer(url, have, timeout) as reply:
        begin = _begin(reply, have, size)
        if have and not begin:
            say('  this address cannot continue a file: it begins anew')
        with part.open('ab' if begin else 'wb') as file, progress(part.stem, size, start=begin) as bar:
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
