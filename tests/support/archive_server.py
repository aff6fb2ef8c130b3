"""A small HTTP server with ranges that breaks off, lies and stalls on demand, and archives to serve."""

import hashlib
import io
import signal
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmres2net.data.prepare.job import DATASETS, Archive, Check, DataSet
from mmres2net.fetch import download


@dataclass(frozen=True)
class Answer:
    """How one request is answered: after ``cut`` bytes the connection ends, ``pause`` seconds lie between blocks."""

    cut: int | None = None
    status: int = 200
    ranges: bool = True
    content: bytes | None = None
    begin: int | None = None  # the place that the reply claims to begin at
    pause: float = 0.0
    length: bool = True
    chunked: bool = False


PLAIN = Answer()


@dataclass
class Server:
    """What is served, how the next requests of a path are answered, and what was asked: (path, Range)."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    log: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f'{self.base}/{path}'

    def ranges(self, path: str) -> list[str | None]:
        return [asked for name, asked in self.log if name == path]


@contextmanager
def serving() -> Iterator[Server]:

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.lstrip('/')
            asked = self.headers.get('Range')
            server.log.append((path, asked))
            queue = server.answers.get(path) or []
            answer = queue.pop(0) if queue else PLAIN
            content = server.files.get(path) if answer.content is None else answer.content
            if content is None or answer.status >= 400:
                self.send_error(answer.status if answer.status >= 400 else 404)
                return
            begin = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and answer.ranges else 0
            self.reply(content, begin, answer)

        def reply(self, content: bytes, begin: int, answer: Answer) -> None:
            self.send_response(206 if begin else 200)
            if begin:
                claimed = begin if answer.begin is None else answer.begin
                self.send_header('Content-Range', f'bytes {claimed}-{len(content) - 1}/{len(content)}')
            if answer.chunked:
                self.send_header('Transfer-Encoding', 'chunked')
            elif answer.length:
                self.send_header('Content-Length', str(len(content) - begin))
            self.send_header('ETag', f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header('X-Repo-Commit', '0' * 40)  # for the client of the Hugging Face hub
            self.end_headers()
            if self.command == 'HEAD':
                return
            body = content[begin:] if answer.cut is None else content[begin : begin + answer.cut]
            if answer.chunked:
                end = b'\r\n0\r\n\r\n' if answer.cut is None else b''
                body = f'{len(content) - begin:x}\r\n'.encode() + body + end
            step = 4096 if answer.pause else len(body) or 1
            for at in range(0, len(body), step):
                try:
                    self.wfile.write(body[at : at + step])
                except OSError:
                    return  # the client went away
                time.sleep(answer.pause)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.daemon_threads = True
    server = Server(f'http://127.0.0.1:{httpd.server_address[1]}')
    thread = threading.Thread(target=httpd.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], *, mode: str = 'w', extra: tarfile.TarInfo | None = None) -> bytes:
    """A tar file with these members and an ``extra`` one without content at the end; ``mode`` 'w:gz' packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return buffer.getvalue()


def archive_of(server: Server, name: str, content: bytes, *, mirrors: int = 0) -> Archive:
    """Serve ``content`` as ``name`` and as many mirrors (``mirror1/NAME``, ...), and return its row of a table."""
    paths = [name, *(f'mirror{i + 1}/{name}' for i in range(mirrors))]
    server.files.update(dict.fromkeys(paths, content))
    urls = tuple(server.url(path) for path in paths)
    return Archive(name, {}, (), urls, len(content), md5=hashlib.md5(content).hexdigest())


def small_set(name: str, counts: Mapping[str, int], server: Server | None = None, **packed: bytes) -> DataSet:
    """Return a row of the table with other ``counts`` by the end of a check's source, and archives that are served."""

    def fewer(checks: tuple[Check, ...]) -> tuple[Check, ...]:
        number = {c: next((n for end, n in counts.items() if c.source.endswith(end)), c.count) for c in checks}
        return tuple(replace(check, count=number[check]) for check in checks)

    row, archives = DATASETS[name], []
    for archive in row.archives:
        made = replace(archive, checks=fewer(archive.checks), md5='')
        if server is not None:
            content = packed[archive.name.partition('.')[0].replace('-', '_')]
            known = archive_of(server, archive.name, content)
            digest = {'md5': known.md5} if archive.md5 else {'sha256': hashlib.sha256(content).hexdigest()}
            made = replace(made, urls=known.urls, size=known.size, unpacked=0, **digest)  # type: ignore[arg-type]
        archives.append(made)
    return replace(row, archives=tuple(archives), checks=fewer(row.checks))


def heed_interrupts() -> None:
    """For a process that is to be interrupted: tests that run in the background of a shell hand down a deaf ear."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def retry_soon(monkeypatch: pytest.MonkeyPatch, tries: int = 2) -> None:
    for name, value in {'TRIES': tries, 'PAUSE': 0.01, 'TIMEOUT': 5.0}.items():
        monkeypatch.setattr(download, name, value)
