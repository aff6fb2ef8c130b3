"""Progress of downloads and unpacking on stderr, and writes that notice a full disk."""

import shutil
import sys
from typing import BinaryIO

from tqdm import tqdm

BLOCK = 2**20


def log(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def progress_bar(title: str, total: int | None, *, start: int = 0, unit: str = 'B') -> tqdm:
    """Return a progress bar on a terminal's stderr: of ``total`` units (None: unknown), with ``start`` of them done."""
    # Python's idea of the size: tqdm draws nothing on a terminal that does not know its own.
    size = shutil.get_terminal_size()
    place = {'disable': None, 'ncols': size.columns, 'nrows': size.lines}
    return tqdm(desc=title, total=total, initial=start, unit=unit, unit_scale=unit == 'B', **place)


def write(file: BinaryIO, block: bytes) -> None:
    """Write ``block`` through to the file system, which reports a full disk at once."""
    file.write(block)
    file.flush()
