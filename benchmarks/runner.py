"""Contenders timed in turns (A B C A B C ...), each in a process of its own, after their outputs were compared.

Allocator settings, thread pools and caches belong to a process, so no contender inherits another's. In turns, a busy
moment of the machine affects all of them. On a GPU the outputs are compared with those of a CPU in float64 (of whole
models, whose operators do not have it, in float32).
"""

import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import PRECISIONS, Case, Contender, DifferenceError, difference
from benchmarks.worker import work
from mmres2net.environment import OPENMMLAB, granted_cores, installed_version
from mmres2net.errors import UserError
from mmres2net.version import __version__

MAX_LOAD = 0.5  # per core
TOLERANCE = {  # in float32
    'cpu': {'inference': 1e-5, 'training': 1e-3, 'step': 2e-2, 'image': 1e-3},
    'cuda': {'inference': 1e-4, 'training': 1e-3, 'step': 2e-2, 'image': 1e-2},
}
LARGEST = 0.1  # in any precision
WARM_UP = {'cpu': 1, 'cuda': 5}  # calls that do not count
EXACT, CEILINGS = ' on the CPU', 'ceilings'  # behind the name of a contender: its reference
PAUSE = 0.02  # OpenMP's threads wait actively for some milliseconds after their last work
LIBRARIES = ('torch', 'timm', 'onnxruntime', 'openvino')
MAX_CALLS = 1000
Work = Callable[[Any], None]
say = partial(print, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Limits:
    turns: int = 7
    seconds: float = 1.0  # of a turn at least, by repeated calls
    request: float = 600.0  # seconds after which a contender that does not answer is ended


def check_load(allow: bool) -> float:
    """Return the load of the last minute; where it is too high for figures that mean something, raise UserError."""
    load, cores = os.getloadavg()[0], granted_cores()
    if load > MAX_LOAD * cores and not allow:
        raise UserError(
            f'the load of this machine is {load:.1f} on {cores:g} cores; wait until it is at most '
            f'{MAX_LOAD * cores:g}, or give --allow-load, which the page will say'
        )
    return load


class Processes:
    """A process for each name; one that fails is ended, and the reason is kept in ``absent``."""

    def __init__(self, names: Iterable[str], work: Work, time_limit: float) -> None:
        self._work, self._time_limit, self._context = work, time_limit, multiprocessing.get_context('spawn')
        self.alive = {name: self._start() for name in names}
        self.absent: dict[str, str] = {}

    def _start(self) -> tuple[Any, Any]:
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(target=self._work, args=(theirs,))
        process.start()
        theirs.close()
        return process, pipe

    def close(self) -> None:
        """End all."""
        for name in list(self.alive):
            self.end(name)

    def ask(self, names: Sequence[str], do: str, **requests: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, with arguments of each name, and return the answers of those that have one."""
        for name in names:
            with suppress(BrokenPipeError):
                self.alive[name][1].send((do, {key: values[name] for key, values in requests.items()}))
        answers, late = {}, f'no answer in {self._time_limit:g} s'
        for name in names:
            process, pipe = self.alive[name]
            try:
                kind, answer = pipe.recv() if pipe.poll(self._time_limit) else ('', late)
            except (EOFError, ConnectionResetError):
                process.join()
                kind, answer = '', f'ended during {do!r} with status {process.exitcode}'
            if kind == 'ok':
                answers[name] = answer
            else:
                self.end(name, answer)
        return answers

    def end(self, name: str, reason: str = '') -> None:
        """End a process and those that it started, for a reason if it was expected to be measured."""
        if reason:
            say(f'{name} is not measured: {reason}')
            self.absent[name] = reason
        process, pipe = self.alive.pop(name)
        with suppress(ProcessLookupError, PermissionError):  # its group, which it may not have yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        pipe.close()


def measure(
    case: Case, contenders: Mapping[str, Contender], limits: Limits, *, allow_load: bool = False, work: Work = work
) -> dict[str, Any]:
    """Compare the outputs of the contenders, time them in turns, and return the result as JSON data."""
    load, on_gpu = check_load(allow_load), case.device == 'cuda'
    os.environ |= dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), str(case.threads))  # of the processes
    cases = dict.fromkeys(contenders, case)
    reference = {name: c.same_as for name, c in contenders.items()}
    if on_gpu:
        reference = {name: f'{root or name}{EXACT}' for name, root in reference.items()}
        exact = 'fp64' if case.suite in ('inference', 'training') else 'fp32'
        cases |= dict.fromkeys(reference.values(), replace(case, device='cpu', precision=exact))
    with closing(Processes([CEILINGS, *cases], work, limits.request)) as all_:
        ceilings = all_.ask([CEILINGS], 'ceilings', case={CEILINGS: case}).get(CEILINGS)
        if ceilings:
            all_.end(CEILINGS)
        # On a GPU at once: a compiler takes a minute, and nothing is timed yet.
        for names in [list(all_.alive)] if on_gpu else [[name] for name in all_.alive]:
            say(f'build {", ".join(names)}')
            all_.ask(names, 'build', case=cases, name={name: name.removesuffix(EXACT) for name in names})
        rows = compare(case, contenders, reference, all_)
        run_turns(all_, {name: row for name, row in rows.items() if name in all_.alive}, WARM_UP[case.device], limits)
    for name in all_.absent.keys() & rows.keys():
        rows[name]['absent'] = all_.absent[name]
    return {
        'version': __version__,
        'date': datetime.now(timezone.utc).date().isoformat(),
        'case': {**asdict(case), 'title': case.title},
        'limits': asdict(limits),
        'load': [load, os.getloadavg()[0]],
        'allow_load': allow_load,
        'machine': {**machine(case), 'ceilings': ceilings},
        'contenders': list(rows.values()),
    }


def compare(
    case: Case, contenders: Mapping[str, Contender], reference: Mapping[str, str | None], all_: Processes
) -> dict[str, dict[str, Any]]:
    """Return a row for each contender with the difference from its reference, and end those that differ too much."""
    rows: dict[str, dict[str, Any]] = {name: {'name': name, 'ours': c.ours} for name, c in contenders.items()}
    outputs = all_.ask(list(all_.alive), 'outputs')
    limit = min(TOLERANCE[case.device][case.suite] * PRECISIONS[case.precision], LARGEST)
    for name, root in reference.items():
        if name not in outputs or root not in outputs:
            continue
        rows[name]['same_as'] = root
        try:
            found = difference(outputs[name], outputs[root], near=0.01 if case.precision == 'fp32' else LARGEST)
            rows[name]['difference'], reason = found, '' if found <= limit else f'differs by {found:.1e} from {root}'
        except DifferenceError as error:
            reason = f'differs from {root}: {error}'
        if reason:
            all_.end(name, reason)
    return rows


def run_turns(all_: Processes, rows: Mapping[str, dict[str, Any]], warm_up: int, limits: Limits) -> None:
    """Time the contenders in turns, after some calls that do not count."""
    calls = dict.fromkeys(rows, 1)
    for turn in range(-warm_up, limits.turns):
        say(f'turn {turn + 1} of {limits.turns}' if turn >= 0 else 'warm-up')
        for name in [name for name in rows if name in all_.alive]:
            time.sleep(PAUSE)
            for seconds in all_.ask([name], 'time', calls=calls).values():
                rows[name].setdefault('seconds', []).append(seconds)
        for name, row in rows.items() if turn == -1 else ():  # the last call tells how many fill a turn
            spent = row.pop('seconds', [limits.seconds])[-1]
            calls[name] = row['calls'] = min(max(round(limits.seconds / max(spent, 1e-9)), 1), MAX_CALLS)


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
    if case.device == 'cuda' and torch.cuda.is_available():
        facts['gpu'] = torch.cuda.get_device_name()
    return {**facts, 'versions': {name: version for name, version in versions.items() if version}}
