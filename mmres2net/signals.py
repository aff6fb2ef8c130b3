"""SIGINT and SIGTERM end a command in order: open files are closed, and one line says what to do next."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmres2net.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WAIT = 5.0  # seconds for each child process to end
received: list[int] = []  # signals of this command


def raise_received() -> None:
    """Raise :class:`Interrupted` again if a signal was received: Python drops what is raised inside of a destructor."""
    if received:
        raise Interrupted(received[0])


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise :class:`Interrupted` in this process.

    Processes that are forked in the block ignore SIGINT, which a terminal sends to all of them: this process ends them.
    A signal that the caller ignores, as shells do for commands in the background, stays ignored.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            # PyTorch turns the end of a data worker, which the same signal may have ended, into an exception.
            signal.signal(signal.SIGCHLD, lambda number, frame: None)
            received.append(number)
            raise Interrupted(number)
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: None if isinstance(what.exc_value, Interrupted) else hook(what)  # see received
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGCHLD)}
    try:
        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    except Interrupted:
        for child in (children := multiprocessing.active_children()):
            child.terminate()
        for child in children:
            child.join(WAIT)
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
