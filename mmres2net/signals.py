"""Signals end a command in order: a training step is saved, files are closed, and one line says what to do next."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from mmres2net.errors import Interrupted, RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
WAIT = 5.0  # seconds for each child process to end
received: list[int] = []  # signals of this command
_held = _ends_children = False


def raise_received() -> None:
    """Raise :class:`Interrupted` again unless signals are held: Python drops what is raised inside of a destructor."""
    if received and not _held:
        raise Interrupted(received[0])


def hold_signals(hold: bool) -> bool:
    """Only note signals in ``received`` from now on, or raise (a second Ctrl-C always); return what was before."""
    global _held
    before, _held = _held, hold
    return before


def worker_init(then: Callable[[int], None] | None) -> Callable[[int], None]:
    """Return what a data worker begins with: within :func:`interruptible`, which ends it, it ignores signals."""
    return partial(_begin_worker, _ends_children, then)  # the flag is not set in workers that are spawned


def _begin_worker(ignore: bool, then: Callable[[int], None] | None, worker: int) -> None:
    for number in SIGNALS if ignore else ():
        signal.signal(number, signal.SIG_IGN)
    if then is not None:
        then(worker)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block :data:`SIGNALS` raise :class:`Interrupted` in this process, unless they are held or ignored.

    Processes that are forked in the block ignore SIGINT, which a terminal sends to all of them, and end with it.
    """
    global _ends_children
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            received.append(number)
            if _held and received.count(signal.SIGINT) < 2:
                return
            raise Interrupted(number)
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    received.clear()
    hold_signals(False)
    others = multiprocessing.active_children()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: None if isinstance(what.exc_value, Interrupted) else hook(what)  # see received
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGCHLD)}
    try:
        _ends_children = True
        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, RunError | Interrupted):
            cause = cause.__context__
        if isinstance(cause, Interrupted):  # a library caught it, as it catches everything, and raised another error
            raise cause from None
        raise
    finally:
        # PyTorch turns the end of a data worker into an exception.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        children = [child for child in multiprocessing.active_children() if child not in others]
        for child in children:
            child.kill()  # data workers ignore SIGTERM, with which Python would end them
        for child in children:
            child.join(WAIT)
        hold_signals(False)
        _ends_children = False
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
