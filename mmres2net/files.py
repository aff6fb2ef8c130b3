"""Files and folders: atomic writes, locks, free space, and checks that an output can be written before work starts."""

import errno
import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmres2net.environment import free_disk
from mmres2net.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LOCK = '.lock'
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.avif', '.jp2')
_locks: set[int] = set()  # open files; a data worker that outlives a killed run would keep the lock
os.register_at_fork(after_in_child=lambda: list(map(os.close, _locks)))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as text."""
    total = hashlib.sha256()
    with path.open('rb') as file:
        while part := file.read(1 << 20):
            total.update(part)
    return total.hexdigest()


@contextmanager
def atomic_path(target: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it at the end of the block, unless the block fails.

    A file left by a killed process is reused; a second process that writes the same target gets a file of its own.
    Links are followed, and something other than a file, such as ``/dev/stdout``, is yielded itself. ``sync`` flushes to
    the disk before the replacement, for a power cut; False is for many small files that can be made again.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        yield target
        return
    draft = target.with_name(f'.{target.name}.part')
    handle = _create(draft)
    if not _try_lock(handle):
        os.close(handle)
        draft = target.with_name(f'.{target.name}.{os.getpid()}.part')
        handle = _create(draft)
    try:
        os.ftruncate(handle, 0)
        yield draft
        if sync:
            _sync(draft)
        draft.replace(target)
        if sync:
            _sync(target.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def write_atomic(target: str | Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``target``, which then holds all of it or is unchanged."""
    with atomic_path(target) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _create(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file of ``folder``; ``busy`` is the message of a UserError, or is printed before the ``wait``."""
    path = folder / LOCK
    handle = _open_locked(path, busy, wait)
    while not _is_open_file(handle, path):  # the process before has removed it
        os.close(handle)
        handle = _open_locked(path, busy, wait)
    _locks.add(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _locks.discard(handle)
        os.close(handle)


def _is_open_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _open_locked(path: Path, busy: str, wait: bool) -> int:
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    if not _try_lock(handle):
        if not wait:
            os.close(handle)
            raise UserError(busy)
        print(busy, file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _try_lock(handle: int) -> bool:
    """Lock an open file; False if another process holds it. File systems without locks count as free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def writable_dir(folder: str | Path, option: str) -> Path:
    """Return ``folder``, created if it is missing; a UserError, which names the ``option``, if it cannot be written."""
    folder = Path(os.path.expanduser(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = 'it is a file' if folder.is_file() else error.strerror or error
        raise UserError(f'{option} {folder}: cannot write to this folder ({reason}); choose another one') from error
    return folder


def writable_file(path: str | Path, option: str) -> Path:
    """Return ``path`` after a test that a file can be written there; its folder is created if it is missing."""
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise UserError(f'{option} {path}: this is a folder; name a file in it')
    if not path.exists() or path.is_file():
        writable_dir(path.parent, f'{option} {path}:')
    return path


def file_size(path: Path) -> int:
    """Return the bytes of a file; -1 if there is none."""
    return path.stat().st_size if path.is_file() else -1


def size_text(count: int) -> str:
    """Return a number of bytes with a unit, such as 19.3 GB."""
    value = float(count)
    for unit in ('bytes', 'kB', 'MB'):
        if value < 1000:
            return f'{value:.0f} {unit}' if unit == 'bytes' else f'{value:.1f} {unit}'
        value /= 1000
    return f'{value:.1f} GB'


def require_space(needs: Mapping[Path, int], option: str = '--root') -> None:
    """Raise a UserError if file systems lack room for these bytes; ``option`` chooses another place."""
    by_device: dict[int, list[tuple[Path, int]]] = {}
    for folder, need in needs.items():
        place = folder.resolve()
        while not place.is_dir():
            place = place.parent
        by_device.setdefault(place.stat().st_dev, []).append((place, need))
    for entries in by_device.values():
        place, need = entries[0][0], sum(need for _, need in entries)
        if need > (free := free_disk(place)):
            raise UserError(
                f'not enough disk space at {place}: {size_text(need)} needed, {size_text(free)} free; '
                f'free some space, or choose another place with {option}'
            )


def disk_error(error: OSError, folder: Path) -> UserError:
    """Return the user's error for a failed operation of the file system in ``folder``."""
    if error.errno in NO_SPACE:
        return UserError(
            f'the disk is full: {error.filename or folder}, {size_text(free_disk(folder))} free. Nothing is lost: '
            'free some space and run the command again; it resumes'
        )
    return UserError(f'{error.filename or folder}: {error.strerror or error}; fix this and run the command again')
