"""What libraries say that is not for the console: Python's warnings, and what they print.

It is held until a run has a log file. ``PYTHONWARNINGS=default`` or ``python -W default`` shows the warnings instead.
"""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from typing import Any

# By mmdet at its import, and by pycocotools, which reads annotations for it.
PRINTED = (
    'Could not import OneDL', 'loading annotations into memory', 'Done (t=', 'creating index', 'index created',
    'Loads checkpoint by',
)  # fmt: skip
QUIET = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning)  # for developers
HOLD = logging.CRITICAL + 1

_held = MemoryHandler(10_000, flushLevel=HOLD)
_log = logging.Logger('libraries')
_log.addHandler(_held)


class _Output:
    """A stream without the lines that begin as in ``PRINTED``."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._dropped = stream, False

    def write(self, text: str) -> int:
        ends_dropped, self._dropped = self._dropped and text == '\n', text.startswith(PRINTED)
        if self._dropped:
            _log.info(text)
        elif not ends_dropped:
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def held_back(*, all_warnings: bool) -> Iterator[None]:
    """Within the block libraries are quiet; ``all_warnings`` also holds back warnings that concern users."""
    shown = warnings.showwarning
    logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # it warns of CUDA's compiler without a GPU

    def hold(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if all_warnings or issubclass(category, QUIET):
            _log.warning(warnings.formatwarning(message, category, filename, lineno, line).rstrip())
        else:
            shown(message, category, filename, lineno, file, line)

    with contextlib.redirect_stdout(_Output(sys.stdout)):
        try:
            warnings.showwarning = shown if sys.warnoptions else hold
            yield
        finally:
            warnings.showwarning = shown
            write_to(None)


def write_to(handler: logging.Handler | None) -> None:
    """Pass on what was held, and all that comes, to ``handler``; None: hold it."""
    _held.flushLevel = HOLD if handler is None else logging.NOTSET
    _held.setTarget(handler)
    _held.flush() if handler else _held.buffer.clear()
