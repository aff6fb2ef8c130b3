"""The errors that the command line prints in a line, without a traceback."""

import importlib
import signal
import sys
from typing import Any


class UserError(ValueError):
    """An error that the user can fix: the message names the value, what is allowed and the way out."""

    status = 2  # nothing was done


class RunError(UserError):
    """A run that stopped after it began: what it wrote so far is there."""

    status = 1


TRY_AGAIN = 75  # EX_TEMPFAIL of <sysexits.h>


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop by a signal. SIGUSR1 and SIGUSR2, sent before a job is requeued, ask to try again.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f'stopped by {signal.Signals(number).name}')
        self.status = TRY_AGAIN if number in (signal.SIGUSR1, signal.SIGUSR2) else 128 + number


class TimeIsUp(Interrupted):
    """The run has taken the time that it was given.

    Args:
        minutes: That time.
    """

    def __init__(self, minutes: float) -> None:
        KeyboardInterrupt.__init__(self, f'stopped after {minutes:g} minutes (--max-minutes)')
        self.status = TRY_AGAIN


def optional(module: str, package: str, purpose: str) -> Any:
    """Import a module of an optional package; a UserError says what it is for and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = f'{purpose} need the package {package}, which cannot be imported ({error})'
        raise UserError(f"{what}: pip install '{package}'") from error


def report(error: BaseException) -> None:
    """Print an error, or a stop, on stderr; twice the same one is printed once."""
    if getattr(error, 'reported', False):
        return
    print(f'\n{error}' if isinstance(error, Interrupted) else f'error: {error}', file=sys.stderr, flush=True)
    if not isinstance(error, Interrupted) and (error.__cause__ is not None or not isinstance(error, UserError)):
        print('(MMRES2NET_TRACEBACK=1 prints the traceback)', file=sys.stderr, flush=True)
    error.reported = True  # type: ignore[attr-defined]


def reason_of(error: BaseException) -> str:
    """Return what an exception of other code says, in one line that can stand in a message.

    Messages of ``KeyError`` come without the quotes that Python puts around them; a message of one word is named by the
    type of the exception; of what a data worker raised, the worker's own exception is named.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if 'Original Traceback' in text:
        return lines[-1]
    line = lines[0] if lines else ''
    return line if ' ' in line else f'{type(error).__name__}: {line}'.rstrip(': ')
