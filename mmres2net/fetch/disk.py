"""Files that are whole or absent, room on the disk, one job at a time, and words on stderr."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from mmres2net.errors import UserError

BLOCK = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def size_text(count: int) -> str:
    """Return a number of bytes as people read it: as 19.3 GB."""
    value = float(count)
    for unit in ('bytes', 'kB', 'MB'):
        if value < 1000:
            return f'{value:.0f} {unit}' if unit == 'bytes' else f'{value:.1f} {unit}'
        value /= 1000
    return f'{value:.1f} GB'


def progress(title: str, total: int, *, start: int = 0, unit: str = 'B') -> tqdm:
    """Return a bar on stderr, which is silent where that is no terminal."""
    # Python's idea of the size: tqdm draws nothing on a terminal that does not know its own.
    size = shutil.get_terminal_size()
    return tqdm(
        desc=title,
        total=total,
        initial=start,
        unit=unit,
        unit_scale=unit == 'B',
        disable=None,
        ncols=size.columns,
        nrows=size.lines,
    )


def size_of(path: Path) -> int:
    """Return the bytes of a file; -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def write(file: BinaryIO, block: bytes) -> None:
    """Write ``block`` down to the file system, which then says at once that it is full."""
    file.write(block)
    file.flush()


@contextmanager
def draft(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` that becomes it at the end of the block, and is removed where the block fails."""
    path = target.with_name(f'.{target.name}.part')
    try:
        yield path
        path.replace(target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def standing(path: Path) -> Path:
    """Return the nearest folder at or above ``path`` that exists, links followed."""
    path = path.resolve()
    while not path.is_dir():
        path = path.parent
    return path


def require_room(needs: Mapping[Path, int]) -> None:
    """Check that the file systems of some folders have room for so many bytes each.

    Raises:
        UserError: One has not.
    """
    by_device: dict[int, list[tuple[Path, int]]] = {}
    for folder, need in needs.items():
        place = standing(folder)
        by_device.setdefault(place.stat().st_dev, []).append((place, need))
    for entries in by_device.values():
        place, need = entries[0][0], sum(need for _, need in entries)
        free = shutil.disk_usage(place).free
        if need > free:
            raise UserError(
                f'too little room at {place}: {size_text(need)} needed, {size_text(free)} free; '
                'make room, or choose another place with --root'
            )


def os_fault(error: OSError, root: Path) -> UserError:
    """Return what a failed operation of the file system means to the user."""
    if error.errno in FULL:
        free = size_text(shutil.disk_usage(standing(root)).free)
        return UserError(
            f'the disk is full: {error.filename or root}, {free} free; what is there stays. '
            'Make room and run the same command again: it continues'
        )
    return UserError(f'{error.strerror or error}: {error.filename or root}; mend this and run the same command again')


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process.

    Raises:
        UserError: Another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f'another prepare-data is at work in {folder}; wait for it, or choose another --root') from None
    else:
        yield
    finally:
        os.close(handle)
