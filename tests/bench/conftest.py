"""Benchmarks without processes, where a test is not about them: starting torch takes seconds each time."""

import json

import pytest

from mmres2net.bench import turns
from mmres2net.bench.measure import MeasurementError
from mmres2net.bench.worker import MissingError, Server, answer


class HereProcess:
    """Stands in for a contender's process: the same requests and answers, here."""

    def __init__(self, name, threads):
        self.name, self._server = name, Server()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def ask(self, do, **request):
        request.pop('keep_memory', None)
        more = {'keep_memory': False} if do == 'build' else {}
        said = json.loads(json.dumps(answer(self._server, {'do': do, **request, **more})))
        if 'missing' in said:
            raise MissingError(said['missing'])
        if 'error' in said:
            raise MeasurementError(f'{self.name} failed to {do}: {said["error"]}')
        return said['ok']

    def close(self):
        self._server = Server()


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(turns, 'Process', HereProcess)
