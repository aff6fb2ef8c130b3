"""Contenders timed in turns (A B C A B C ...), each in a process of its own, after their outputs were compared.

Allocator settings, thread pools and caches belong to a process, so no contender inherits another's. In turns, a busy
moment of the machine affects all of them.
"""

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.case import Case, Contender, DifferenceError, MissingError, difference
from mmres2net.environment import OPENMMLAB, granted_cores, installed_version
from mmres2net.errors import UserError
from mmres2net.version import __version__

MAX_LOAD = 0.5  # per core
TOLERANCE = {'inference': 1e-5, 'training': 1e-3, 'step': 2e-2, 'image': 1e-3}
PAUSE = 0.02  # OpenMP's threads wait actively for some milliseconds after their last work
LIBRARIES = ('torch', 'timm', 'onnxruntime', 'openvino')
MAX_CALLS = 1000
say = partial(print, file=sys.stderr, flush=True)


class FailedError(Exception):
    """A contender failed, ended, or took longer than its time limit."""


@dataclass(frozen=True)
class Limits:
    """How often and how long is measured."""

    turns: int = 7
    seconds: float = 1.0  # of a turn at least, by repeated calls
    request: float = 600.0  # seconds after which a contender that does not answer is ended


class Process:
    """The process of a contender; leaving the ``with`` block ends it and all processes that it started."""

    def __init__(self, command: Sequence[str], threads: int, time_limit: float) -> None:
        count = str(threads)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._time_limit = time_limit
        env = {**os.environ, 'OMP_NUM_THREADS': count, 'MKL_NUM_THREADS': count}
        pipes: Any = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': self._log}
        self._process = subprocess.Popen(command, **pipes, env=env, start_new_session=True)

    def __enter__(self) -> 'Process':
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def ask(self, do: str, **request: Any) -> Any:
        """Return the answer to a request.

        ``MissingError``: it cannot be measured here. ``FailedError``: it failed, ended or took longer than its limit.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write((json.dumps({'do': do, **request}) + '\n').encode())
            self._process.stdin.flush()
        line = self._read_line()
        if not line:
            self._log.seek(0)
            last = self._log.read()[-500:].decode(errors='replace').strip()
            raise FailedError(f'ended during {do!r}: {last or "no output"}')
        answer = json.loads(line)
        if 'missing' in answer:
            raise MissingError(answer['missing'])
        if 'error' in answer:
            raise FailedError(answer['error'])
        return answer['ok']

    def _read_line(self) -> bytes:
        """Return a line of the answer, or nothing if the process has ended."""
        stream: Any = self._process.stdout
        end, line = time.monotonic() + self._time_limit, b''
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not line.endswith(b'\n'):
                if not selector.select(max(end - time.monotonic(), 0)):
                    raise FailedError(f'no answer within {self._time_limit:g} s')
                part = os.read(stream.fileno(), 65536)
                if not part:
                    return b''
                line += part
        return line


def check_load(allow: bool) -> float:
    """Return the load of the last minute; where it is too high for figures that mean something, raise UserError."""
    load, cores = os.getloadavg()[0], granted_cores()
    if load > MAX_LOAD * cores and not allow:
        raise UserError(
            f'the load of this machine is {load:.1f} on {cores:g} cores; wait until it is at most '
            f'{MAX_LOAD * cores:g}, or give --allow-load, which the page will say'
        )
    return load


def measure(
    case: Case,
    contenders: Mapping[str, Contender],
    limits: Limits,
    *,
    allow_load: bool = False,
    worker: Sequence[str] = (sys.executable, '-m', 'benchmarks.worker'),
) -> dict[str, Any]:
    """Compare the outputs of the contenders, time them in turns, and return the result as JSON data."""
    load = check_load(allow_load)
    rows: dict[str, dict[str, Any]] = {name: {'name': name, 'ours': c.ours} for name, c in contenders.items()}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        alive = {name: stack.enter_context(Process(worker, case.threads, limits.request)) for name in contenders}

        def ask(name: str, do: str, /, **request: Any) -> Any:
            try:
                return alive[name].ask(do, **request)
            except (MissingError, FailedError) as error:
                say(f'{name} is not measured: {error}')
                rows[name]['absent'] = str(error)
                alive.pop(name).__exit__()
                return None

        for name in contenders:
            say(f'build {name}')
            ask(name, 'build', case=asdict(case), name=name)
        for name in list(alive):
            ask(name, 'outputs', file=f'{folder}/{list(contenders).index(name)}.npz')
        compare(case, contenders, rows, alive, Path(folder))
        run_turns(ask, alive, rows, limits)
    return {
        'version': __version__,
        'date': datetime.now(timezone.utc).date().isoformat(),
        'case': {**asdict(case), 'title': case.title},
        'limits': asdict(limits),
        'load': [load, os.getloadavg()[0]],
        'allow_load': allow_load,
        'machine': machine(case),
        'contenders': list(rows.values()),
    }


def compare(
    case: Case, contenders: Mapping[str, Contender], rows: Mapping[str, Any], alive: dict[str, Process], folder: Path
) -> None:
    """Note the difference of each contender from the one that it must equal; leave out those that differ."""
    names = list(contenders)
    outputs = {name: dict(np.load(folder / f'{names.index(name)}.npz')) for name in alive}
    for name, contender in contenders.items():
        reference = contender.same_as
        if name not in alive or reference not in outputs:
            continue
        rows[name]['same_as'] = reference
        try:
            rows[name]['difference'] = found = difference(outputs[name], outputs[reference])
            reason = '' if found <= TOLERANCE[case.suite] else f'differs by {found:.1e} from {reference}'
        except DifferenceError as error:
            reason = f'differs from {reference}: {error}'
        if reason:
            say(f'{name} is not measured: {reason}')
            rows[name]['absent'] = reason
            alive.pop(name)


def run_turns(ask: Any, alive: Mapping[str, Process], rows: Mapping[str, dict[str, Any]], limits: Limits) -> None:
    """Time the contenders in turns, after one call each that does not count."""
    calls = {}
    for name in list(alive):
        answer = ask(name, 'time', calls=1)
        if answer:
            calls[name] = min(max(round(limits.seconds / max(answer['seconds'], 1e-9)), 1), MAX_CALLS)
            rows[name].update(calls=calls[name], seconds=[])
    for turn in range(limits.turns):
        say(f'turn {turn + 1} of {limits.turns}')
        for name in list(alive):
            time.sleep(PAUSE)
            answer = ask(name, 'time', calls=calls[name])
            if answer:
                rows[name]['seconds'].append(answer['seconds'])


def machine(case: Case) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, versions."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        cpu = next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
        flags = next(line.split() for line in lines if line.startswith('flags'))
        found = [name for name in ('avx2', 'avx512f', 'avx512_bf16', 'amx_tile') if name in flags]
        cpu += f' ({", ".join(found)})' if found else ''
    versions = {name: installed_version(name) for name in (*LIBRARIES, *(n for ns in OPENMMLAB.values() for n in ns))}
    facts = {'cpu': cpu, 'cores': granted_cores(), 'python': platform.python_version()}
    if case.device == 'cuda':
        facts['gpu'] = torch.cuda.get_device_name()
    return {**facts, 'versions': {name: version for name, version in versions.items() if version}}
