"""Contenders timed in turns (A B C A B C ...), each alive in a process of its own.

Allocator settings, thread pools and caches belong to a process, so contenders in one process would inherit each other's
heap, threads and caches, and the later ones would find the memory mapped that the first ones had to ask for. Here none
does. They take turns, so that a busy moment of the machine meets all of them, and while one runs the others wait for
their next request, which takes no processor time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from mmres2net.bench.measure import MeasurementError
from mmres2net.bench.worker import MissingError

LAST_WORDS = 1500  # characters of a process's standard error
# Between turns: OpenMP's threads spin for some milliseconds after their last work before they sleep.
SETTLE = 0.02
MOST_CALLS = 1000


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Args:
        name: As in the tables.
        job: ``module:name`` of what is called with ``options`` in the contender's process; see
            :class:`mmres2net.bench.worker.Job`.
        options: Keywords, as JSON.
        against: Name of the contender that it is compared with.
        same_as: Name of what its outputs have to equal: a reference, or another contender.
        keep_memory: Runs with :func:`mmres2net.malloc.keep_freed_memory`.
        ours: A fault of its own ends the benchmark; a peer's is a row that says so.
        note: Said in the table behind the name.
    """

    name: str
    job: str
    options: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    same_as: str | None = None
    keep_memory: bool = False
    ours: bool = False
    note: str = ''


class Process:
    """The process of a contender."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        count = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'mmres2net.bench.worker'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, 'OMP_NUM_THREADS': count, 'MKL_NUM_THREADS': count},
            start_new_session=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, **request: Any) -> Any:
        """Return the answer to a request.

        Raises:
            MissingError: The contender cannot be measured here.
            MeasurementError: It failed or died; its last words are in the message.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({'do': do, **request}) + '\n')
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ''
        if not line:
            self._died(do)
        answer = json.loads(line)
        if 'missing' in answer:
            raise MissingError(answer['missing'])
        if 'error' in answer:
            raise MeasurementError(f'{self.name} failed to {do}: {answer["error"]}{self._last_words()}')
        return answer['ok']

    def _died(self, doing: str) -> NoReturn:
        code = self._process.wait()
        how = f'was ended by signal {-code}' if code < 0 else f'ended with {code}'
        raise MeasurementError(f'{self.name} {how} when asked to {doing}{self._last_words()}')

    def _last_words(self) -> str:
        self._stderr.seek(0)
        words = self._stderr.read()[-LAST_WORDS:].decode(errors='replace').strip()
        return f'\nits last words:\n{words}' if words else '; it said nothing'

    def close(self) -> None:
        """End the process and those that it has started: nothing is left to be saved, and it may be in a long call."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None and not stream.closed:
                _close(stream)


def _close(stream: Any) -> None:
    with suppress(BrokenPipeError):  # something was left to be written to a dead process
        stream.close()


class Team:
    """Contenders in their processes.

    Attributes:
        absent: Why a contender is not measured, by its name.
    """

    def __init__(self, contenders: Sequence[Contender], threads: int) -> None:
        self.contenders = list(contenders)
        self.absent: dict[str, str] = {}
        self._threads = threads
        self._processes: dict[str, Process] = {}

    @property
    def present(self) -> list[Contender]:
        """The contenders that are measured."""
        return [one for one in self.contenders if one.name in self._processes]

    def build(self) -> None:
        """Start and build all.

        Raises:
            MeasurementError: One of ours failed.
        """
        for one in self.contenders:
            say(f'build: {one.name}')
            process = self._processes[one.name] = Process(one.name, self._threads)
            try:
                process.ask('build', job=one.job, options=dict(one.options), keep_memory=one.keep_memory)
            except MissingError as error:
                self.leave_out(one, str(error))
            except MeasurementError as error:
                if one.ours:
                    raise
                say(str(error))
                self.leave_out(one, str(error).splitlines()[0].removeprefix(f'{one.name} failed to build: '))

    def leave_out(self, contender: Contender, reason: str) -> None:
        """Do not measure ``contender``, and say why."""
        self._processes.pop(contender.name).close()
        self.absent[contender.name] = reason
        say(f'not measured: {contender.name}: {reason}')

    def ask(self, contender: Contender, do: str, **request: Any) -> Any:
        """Return the answer of one contender; see :meth:`Process.ask`."""
        try:
            return self._processes[contender.name].ask(do, **request)
        except MissingError as error:
            raise MeasurementError(f'{contender.name} failed to {do}: {error}') from error

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what the contenders know of themselves, by name."""
        return {one.name: self.ask(one, 'facts') for one in self.present}

    def time(self, repeats: int, turn: float) -> dict[str, list[dict[str, Any]]]:
        """Return the turns of each contender by name, after one call each that does not count.

        Args:
            repeats: Number of turns.
            turn: Seconds that a turn shall take at least, if one call takes less.
        """
        calls = {}
        for one in self.present:
            say(f'warm up: {one.name}')
            first = self.ask(one, 'time', calls=1)['seconds']
            calls[one.name] = min(max(round(turn / max(first, 1e-9)), 1), MOST_CALLS)
        runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in self.present}
        for number in range(repeats):
            say(f'turn {number + 1} of {repeats}')
            for one in self.present:
                time.sleep(SETTLE)
                runs[one.name].append(self.ask(one, 'time', calls=calls[one.name]))
        return runs

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()


@contextmanager
def team_of(contenders: Sequence[Contender], threads: int) -> Iterator[Team]:
    """Build the contenders; end their processes at the end, whatever happens."""
    team = Team(contenders, threads)
    try:
        team.build()
        yield team
    finally:
        team.close()


def once(function: str, options: Mapping[str, Any], threads: int) -> Any:
    """Return what ``module:name`` returns when called with ``options`` in a process of its own.

    Raises:
        MissingError: It cannot be done here.
        MeasurementError: It failed.
    """
    with Process(function.partition(':')[2], threads) as process:
        return process.ask('once', function=function, options=dict(options))


def outputs_of(contender: Contender, file: Path, threads: int) -> dict[str, Any]:
    """Write the outputs of a contender into ``file``, from a process that ends with it; return its facts."""
    with Process(contender.name, threads) as process:
        process.ask('build', job=contender.job, options=dict(contender.options), keep_memory=False)
        process.ask('check', file=str(file))
        return process.ask('facts')


def say(text: str) -> None:
    """Tell on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)
