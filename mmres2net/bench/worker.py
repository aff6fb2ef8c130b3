"""A contender's own process: ``python -m mmres2net.bench.worker``, driven by lines of JSON.

Nothing but the standard library is imported here, so that a contender without torch is without it. Each request is one
line with a ``do``, each answer one line with ``ok``, ``missing`` (cannot be measured here, and why) or ``error``. In
between the process waits for input and takes no processor time. What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from mmres2net.bench.device import Meter, meter


class MissingError(Exception):
    """Something cannot be measured here, which is no fault: a package, a network or a device is not there."""


class Job(Protocol):
    """What a contender does; built from its options, which come as JSON.

    It may also have ``device`` (``cpu`` where it has not), and ``before()``, which is called before each call of
    ``run`` and not timed.
    """

    def run(self) -> None:
        """Do once what is timed."""

    def outputs(self) -> dict[str, Any]:
        """Return arrays by name, for comparison with what others give. The first word of a name says its kind."""

    def facts(self) -> dict[str, Any]:
        """Return what else is to be known, as JSON."""


class Server:
    """Answers requests with one job, which the first of them builds."""

    job: Job
    meter: Meter

    def build(self, job: str, options: dict[str, Any], keep_memory: bool) -> dict[str, Any]:
        """Build the job ``module:name``, and begin to watch the memory it takes from here on."""
        if keep_memory:
            from mmres2net.malloc import keep_freed_memory

            if not keep_freed_memory():
                raise MissingError('this C library has no switches for freed memory')
        self.job = resolve(job)(**options)
        self.meter = meter(getattr(self.job, 'device', 'cpu'))
        self.meter.start_memory()
        return {}

    def check(self, file: str) -> dict[str, Any]:
        """Write the outputs to ``file`` (``.npz``)."""
        import numpy as np

        np.savez(file, **self.job.outputs())
        return {}

    def time(self, calls: int) -> dict[str, Any]:
        """Return the seconds that ``calls`` calls took together, and the most memory held since the start."""
        before = getattr(self.job, 'before', None)
        if before is None:
            seconds = self.meter.seconds(self.job.run, calls)
        else:
            seconds = 0.0
            for _ in range(calls):
                before()
                seconds += self.meter.seconds(self.job.run, 1)
        return {'seconds': seconds, 'calls': calls, 'peak_mib': self.meter.peak_mib()}

    def facts(self) -> dict[str, Any]:
        """Return what the job knows of itself."""
        return self.job.facts()

    def once(self, function: str, options: dict[str, Any]) -> Any:
        """Return what the function ``module:name`` returns, as JSON."""
        return resolve(function)(**options)


def resolve(name: str) -> Callable[..., Any]:
    """Return what ``module:name`` names."""
    module, _, attribute = name.partition(':')
    return getattr(importlib.import_module(module), attribute)


def answer(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request; whatever goes wrong is in it."""
    options = dict(request)
    try:
        return {'ok': getattr(server, options.pop('do'))(**options)}
    except MissingError as error:
        return {'missing': str(error)}
    except ModuleNotFoundError as error:
        if (error.name or '').startswith('mmres2net'):
            return _failed(error)
        return {'missing': f'{error.name} is not installed'}
    except Exception as error:  # a peer may raise anything
        return _failed(error)


def _failed(error: Exception) -> dict[str, Any]:
    traceback.print_exc()
    lines = str(error).strip().splitlines() or ['']
    return {'error': f'{type(error).__name__}: {lines[0]}'}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    server = Server()
    for line in requests:
        answers.write(json.dumps(answer(server, json.loads(line))) + '\n')
        answers.flush()


def main() -> None:
    """Serve on the standard streams; whoever prints does not get in between the answers."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    serve(sys.stdin, answers)
    answers.close()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to be said, and some runtimes take seconds, or crash, on their way out


if __name__ == '__main__':
    from mmres2net.bench.worker import main as serve_here  # so that MissingError is one class, not that of __main__ too

    serve_here()
