"""What a check finds, and the few facts about versions that all checks share. Only the standard library."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal['ok', 'note', 'warn', 'fail', 'skip']
PACKAGE = 'mmres2net'


@dataclass(frozen=True)
class Result:
    """One line of the report.

    Attributes:
        name: What was looked at.
        status: ``ok``; ``note``: fine, but worth knowing; ``warn``: works, not as it should; ``fail``: something will
            not run; ``skip``: could not be looked at.
        detail: What was found.
        remedy: What to do about it; a warning or a failure always has one.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ''

    def __post_init__(self) -> None:
        if self.status in ('warn', 'fail') and not self.remedy:
            raise ValueError(f'{self.name}: a result with status {self.status!r} needs a remedy')


Check = Callable[[], Iterable[Result]]


def guarded(name: str, check: Check) -> list[Result]:
    """Return what a check finds; a check that breaks is a finding itself and does not end the others."""
    try:
        return list(check())
    except ImportError as error:
        missing = error.name or 'the module it names'
        return [Result(name, 'fail', f'not checked: {error}', f'pip install {missing}')]
    except Exception as error:
        text = f'not checked: {type(error).__name__}: {error}'
        return [Result(name, 'fail', text, 'mend what the message names; if it names nothing, report this as a bug')]


def installed(name: str) -> str | None:
    """Return the version of an installed distribution; None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: ``'2.11.0a0+git1'`` gives ``(2, 11, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def wanted(name: str) -> str:
    """Return the requirement on a distribution as our own metadata state it; its bare name where they do not."""
    lines = (line.split(';')[0].strip() for line in _requirements())
    return next((line for line in lines if re.fullmatch(rf'{re.escape(name)}\b(?!-).*', line)), name)


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []
