"""Downloads from a server that breaks off, lies and stalls: the file is right in the end, or absent."""

import errno
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tqdm import tqdm

from mmres2net.errors import UserError
from mmres2net.fetch import download
from mmres2net.fetch.download import Remote, fetch
from tests.support.archive_server import Answer, Server, archive_of, retry_soon, serving

CONTENT = random.Random(0).randbytes(300_000)
NAME = 'a.zip'
PART = f'{NAME}.part'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    retry_soon(monkeypatch, tries=3)
    with serving() as running:
        yield running


@pytest.fixture
def archive(server: Server) -> Remote:
    return archive_of(server, NAME, CONTENT).remote


@pytest.fixture
def mirrored(server: Server) -> Remote:
    return archive_of(server, NAME, CONTENT, mirrors=1).remote


def check_fetched(path: Path, folder: Path) -> None:
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == [NAME]


CUTS = [Answer(cut=50_000), Answer(cut=1), Answer(cut=0), *[Answer(cut=20_000)] * 4]
STARTS = (50_000, 50_001, 50_001, 70_001, 90_001, 110_001, 130_001)
# The part that is there, the answers of the server, and the range of each request.
TRANSFERS: dict[str, tuple[bytes, list[Answer], list[str | None]]] = {
    'whole': (b'', [], [None]),
    # more cuts than tries: each brought some bytes, so the count of tries starts again
    'cuts': (b'', CUTS, [None, *(f'bytes={start}-' for start in STARTS)]),
    'cut without length': (b'', [Answer(cut=1000, length=False)], [None, 'bytes=1000-']),
    'part': (CONTENT[:123_456], [], ['bytes=123456-']), 'complete part': (CONTENT, [], []),
    'complete part, unsized': (CONTENT, [Answer(status=416)], ['bytes=300000-', None]),
    'no ranges': (CONTENT[:1000], [Answer(ranges=False)], ['bytes=1000-']),
    'cut chunks, unsized': (b'', [Answer(chunked=True, cut=1000, ranges=False)], [None, 'bytes=1000-']),
    'busy': (b'', [Answer(status=503), Answer(status=429)], [None, None, None]),
    'part too long': (CONTENT + b'x', [], [None]), 'part of another file': (b'x' * 1000, [], ['bytes=1000-', None]),
}  # fmt: skip


@pytest.mark.parametrize('name', TRANSFERS)
def test_transfers(server: Server, archive: Remote, tmp_path: Path, name: str) -> None:
    part, answers, ranges = TRANSFERS[name]
    if part:
        (tmp_path / PART).write_bytes(part)
    server.answers[NAME] = list(answers)
    size = archive.size if 'unsized' not in name else None
    check_fetched(fetch(replace(archive, size=size), tmp_path), tmp_path)
    assert server.ranges(NAME) == ranges


@pytest.mark.parametrize(
    ('answer', 'asked'), [(Answer(begin=900), 'bytes=1000-'), (Answer(content=b'<html>moved</html>'), None)]
)
def test_unusable_replies_lead_to_the_mirror(server, mirrored, tmp_path, answer, asked) -> None:
    if asked:
        (tmp_path / PART).write_bytes(CONTENT[:1000])
    server.answers[NAME] = [answer]
    check_fetched(fetch(mirrored, tmp_path), tmp_path)
    assert server.ranges(f'mirror1/{NAME}') == [asked]


def test_stalled_server_is_given_up_for_the_mirror(server, mirrored, tmp_path, monkeypatch) -> None:
    retry_soon(monkeypatch, tries=1)
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    server.answers[NAME] = [Answer(pause=3.0)] * 3
    check_fetched(fetch(mirrored, tmp_path), tmp_path)
    assert server.ranges(f'mirror1/{NAME}')[0] in ('bytes=4096-', 'bytes=8192-')


def test_mirrors_are_taken_in_order(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server, NAME, CONTENT, mirrors=2).remote
    server.answers = {NAME: [Answer(status=404)], f'mirror1/{NAME}': [Answer(cut=1000), *[Answer(cut=0)] * 3]}
    check_fetched(fetch(archive, tmp_path), tmp_path)
    assert [path for path, _ in server.log] == [NAME, *[f'mirror1/{NAME}'] * 3, f'mirror2/{NAME}']
    assert server.ranges(f'mirror2/{NAME}') == ['bytes=1000-']


def test_other_sizes_are_refused(server: Server, archive: Remote, tmp_path: Path) -> None:
    """A reply without end is stopped, and another file is not spliced in."""
    server.answers[NAME] = [Answer(content=CONTENT * 3, length=False)]
    with pytest.raises(UserError, match='300,000'):
        fetch(archive, tmp_path)
    (tmp_path / PART).write_bytes(CONTENT[:1000])
    server.files[NAME] = CONTENT + b'new'
    with pytest.raises(UserError, match=r'300,003.*300,000'):
        fetch(archive, tmp_path)
    assert (tmp_path / PART).read_bytes() == CONTENT[:1000]


def test_damaged_files_are_removed_and_fetched_again(server: Server, mirrored: Remote, tmp_path: Path) -> None:
    server.answers[NAME] = [Answer(content=bytes([CONTENT[0] ^ 1]) + CONTENT[1:])]
    check_fetched(fetch(mirrored, tmp_path), tmp_path)
    assert [path for path, _ in server.log] == [NAME, f'mirror1/{NAME}']
    (tmp_path / NAME).unlink()
    server.answers[NAME] = []
    for path in server.files:
        server.files[path] = b'x' * len(CONTENT)
    with pytest.raises(UserError) as caught:
        fetch(mirrored, tmp_path)
    assert str(caught.value).count(mirrored.digest) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_does_not_answer(server: Server, tmp_path: Path) -> None:
    with serving() as gone:
        closed = archive_of(gone, NAME, CONTENT).remote
    with pytest.raises(UserError, match='Connection refused'):
        fetch(closed, tmp_path)


def test_full_disk_keeps_the_part(server, archive, tmp_path, monkeypatch) -> None:
    server.answers[NAME] = [Answer(pause=0.001)]

    def full(bar: tqdm, count: int) -> None:
        bar.n += count
        if bar.n > 100_000:
            raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(tqdm, 'update', full)
        with pytest.raises(OSError, match='No space left') as caught:
            fetch(archive, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert len(server.log) == 1  # the network is not to blame: no second try
    kept = (tmp_path / PART).read_bytes()
    assert len(kept) > 100_000
    assert kept == CONTENT[: len(kept)]
    check_fetched(fetch(archive, tmp_path), tmp_path)
    assert server.ranges(NAME)[1] == f'bytes={len(kept)}-'
