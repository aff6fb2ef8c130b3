"""Timing in turns, each run in a process of its own, and what to say of the machine."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


class MeasurementError(RuntimeError):
    """A benchmark that gives no figures: contenders disagree, or one of them fell over."""


def in_turns(commands: Mapping[str, Sequence[str]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run each command ``repeats`` times, one after the other in turn, so that a busy moment meets all of them.

    Args:
        commands: Arguments to this Python by name; each prints one JSON object as its last line.
        repeats: Number of turns.

    Returns:
        The objects by name, in the order of the runs.

    Raises:
        MeasurementError: A command failed; its last words are in the message.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for turn in range(repeats):
        for name, arguments in commands.items():
            print(f'turn {turn + 1} of {repeats}: {name}', file=sys.stderr)
            done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise MeasurementError(f'{name} ended with {done.returncode}:\n{done.stderr[-2000:]}')
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def peak_mib() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path('/proc/self/status')
    if status.exists():  # getrusage would also count the process that this one was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def forget_peak() -> bool:
    """Let :func:`peak_mib` begin anew at what is held now; return whether this system can.

    What has been freed is given back first: nobody shall find memory in store that loading left behind.
    """
    gc.collect()
    if platform.libc_ver()[0] == 'glibc':
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:  # no Linux, or a locked one: the peak then counts from the start of the process
        return False
    return True


def resident_mib() -> float:
    """Return the memory that this process holds now, in MiB; where nobody tells, the most it has held."""
    status = Path('/proc/self/status')
    if not status.exists():
        return peak_mib()
    line = next(line for line in status.read_text().splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1]) / 1024


def machine(packages: Sequence[str] = ()) -> str:
    """Return one line about processor, memory, Python, the versions of ``packages`` and what else keeps it busy.

    Packages that are not installed are left out.

    The load is that of the last minute, so ask before the measurement.
    """
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3
    names = [f'{name} {found}' for name in packages if (found := _version(name))]
    cores = f'{os.cpu_count()} logical cores'
    busy = f'load before the start {os.getloadavg()[0]:.1f}'
    return ', '.join([_processor(), cores, f'{memory:.0f} GiB', f'Python {platform.python_version()}', *names, busy])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return named[0] if named else platform.processor() or platform.machine()
