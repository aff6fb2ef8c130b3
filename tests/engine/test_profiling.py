"""``--profile``: time goes to the right part, the shares add up, and nothing is trained or saved."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import profile

from mmres2net.engine import profiling
from mmres2net.engine.profiling import ProfileDone, ProfileHook, record, tables
from tests.engine.demo import evaluate_demo, train_demo

PARTS = {'waiting for data', 'data_preprocessor', 'backbone', 'neck', 'rpn_head', 'roi_head', 'other'}


def shares(text: str) -> dict[str, float]:
    """The share of each part in percent, and 100 for a step."""
    return {name: float(share) for share, name in re.findall(r'^ *[\d.]+ +([\d.]+)%  (.+)$', text, re.MULTILINE)}


class Sleeper:
    def wait(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def test_time_goes_to_the_part_that_takes_it() -> None:
    slow, quick = Sleeper(), Sleeper()
    record(slow, 'wait', 'slow')
    record(quick, 'wait', 'quick')
    record(quick, 'no_such_method', 'nothing')
    start = time.perf_counter()
    with profile() as profiler:
        assert slow.wait(0.3) == 0.3
        quick.wait(0.05)
        quick.wait(0.05)
        time.sleep(0.1)
    found = shares(tables(profiler, 1000 * (time.perf_counter() - start), 2))
    assert set(found) == {'slow', 'quick', 'other', f'a step; 2 steps, {torch.get_num_threads()} threads'}
    assert found['slow'] > found['quick'] > 0 < found['other']
    assert sum(found.values()) == pytest.approx(200, abs=1)


@pytest.mark.parametrize('done', [0, profiling.WARM_UP])
def test_run_that_is_too_short(done: int, tmp_path: Path) -> None:
    hook = ProfileHook(steps=2)
    runner: Any = SimpleNamespace(
        model=nn.Sequential(nn.Linear(2, 2)), test_loop=SimpleNamespace(evaluator=Sleeper()), work_dir=tmp_path
    )
    hook.before_test(runner)
    for i in range(done):
        hook.after_test_iter(runner, i)
    with pytest.raises(ProfileDone):
        hook.after_test(runner)
    assert 'too short' in (tmp_path / 'profile_test.txt').read_text()


def test_training_and_testing(trained_demo: Path, shapes: Path, tmp_path: Path) -> None:
    flags = ('--skip-data-check', '--profile', '2')
    assert train_demo(tmp_path, shapes, *flags, epochs=2).status == 0
    found = shares((tmp_path / 'profile_train.txt').read_text())
    assert {*PARTS, 'backward', 'optimizer'} < set(found)
    assert sum(found.values()) == pytest.approx(200, abs=1)
    assert not list(tmp_path.rglob('*.pth'))
    assert evaluate_demo(trained_demo / 'epoch_1.pth', tmp_path, shapes, *flags).status == 0
    found = shares((tmp_path / 'profile_test.txt').read_text())
    assert {*PARTS, 'evaluation'} - {'data_preprocessor'} < {*found, 'data_preprocessor'}
    assert not list(tmp_path.glob('*/*.json'))  # no metrics
