"""``--profile``: time goes to the right part, the shares add up, and nothing is trained or saved."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from mmres2net.engine import profiling
from mmres2net.engine.profiling import ProfileDone, ProfileHook
from tests.engine.demo import evaluate_demo, train_demo

PARTS = {'waiting for data', 'data_preprocessor', 'backbone', 'neck', 'rpn_head', 'roi_head', 'other'}


def shares(text: str) -> dict[str, float]:
    return {name: float(share) for share, name in re.findall(r'^ *[\d.]+ +([\d.]+)%  (.+)$', text, re.MULTILINE)}


@pytest.mark.parametrize('done', [0, profiling.WARM_UP])
def test_run_that_is_too_short(done: int, tmp_path: Path) -> None:
    hook = ProfileHook(steps=2)
    runner: Any = SimpleNamespace(
        model=nn.Sequential(nn.Linear(2, 2)), test_loop=SimpleNamespace(evaluator=SimpleNamespace()), work_dir=tmp_path
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
