"""``--profile``: time goes to the right part, the shares add up, and nothing is trained or saved."""

import re
from pathlib import Path

import pytest

from tests.engine.demo import evaluate_demo, train_demo

PARTS = {'waiting for data', 'data_preprocessor', 'backbone', 'neck', 'rpn_head', 'roi_head', 'other'}


def shares(text: str) -> dict[str, float]:
    return {name: float(share) for share, name in re.findall(r'^ *[\d.]+ +([\d.]+)%  (.+)$', text, re.MULTILINE)}


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
