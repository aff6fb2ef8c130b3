"""Runs that are killed, stopped and resumed end where the uninterrupted run ends, bit for bit."""

import random
from functools import partial
from pathlib import Path

import pytest

from tests.stress.__main__ import kills, signals
from tests.stress.runs import Runs, differences, outcome, slow_disk


@pytest.mark.parametrize(('config', 'workers', 'most'), [
    ('numbers', 2, 2), ('steps', 1, 3), ('accumulated', 0, 4), ('wrapped', 1, 3), ('repeated', 0, 4),
    ('spawned', 1, 1), ('detector', 0, 1),
])  # fmt: skip
def test_runs_that_are_stopped_after_each_step(tmp_path: Path, config: str, workers: int, most: int) -> None:
    if config == 'repeated':
        pytest.importorskip('mmpretrain.engine')
        pytest.importorskip('mmpretrain.datasets')
    runs, stops = Runs(tmp_path, config, workers), 0
    assert runs.finish(tmp_path / 'whole') == 0
    while (status := runs.finish(tmp_path / 'stopped', '--max-minutes', '1e-9' if stops < most else '99')) == 75:
        stops += 1
    assert (status, stops) == (0, most)
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'stopped')) == []


def test_killed_runs(tmp_path: Path) -> None:
    tried, faults = kills(Runs(tmp_path, 'numbers', 1), 3, random.Random(0), partial(slow_disk, 0.1))
    assert (tried['kills'] >= 3, faults) == (True, [])


def test_signals_in_each_phase(tmp_path: Path) -> None:
    phases = ['data check', 'checkpoint', 'evaluation']
    tried, faults = signals(Runs(tmp_path, 'numbers', 1), 1, random.Random(0), phases)
    assert (tried['equal bit for bit'], faults) == (3, [])
