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

from mmres2net.cli import main
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine import profiling
from mmres2net.engine.profiling import ProfileDone, ProfileHook, record, tables

CONFIG = 'configs/demo/faster_rcnn_r2n50.py'
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
    assert found['slow'] > found['quick'] > 0
    assert found['other'] > 0
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


def test_training_and_testing(tmp_path: Path) -> None:
    shapes = make_shapes(tmp_path / 'shapes', spec=ShapesSpec(n_train=8, n_val=8, seed=1))
    loaders = [f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')]
    loaders += [f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val', 'test')]
    short = ['train_dataloader.dataset.indices=1', 'val_dataloader.dataset.indices=1', 'train_cfg.max_epochs=1']
    options = ['--cfg-options', *loaders, 'model.backbone.arch=res2net50_18w_4s', 'train_dataloader.batch_size=1']
    common = ['--data', str(shapes), '--skip-data-check']
    profiled = ['--work-dir', str(tmp_path / 'profile'), '--profile', '2']
    assert main(['train', CONFIG, *common, *profiled, '--from-scratch', *options]) == 0
    found = shares((tmp_path / 'profile' / 'profile_train.txt').read_text())
    assert {*PARTS, 'backward', 'optimizer'} < set(found)
    assert sum(found.values()) == pytest.approx(200, abs=1)
    assert not list(tmp_path.rglob('*.pth'))
    run = ['--work-dir', str(tmp_path / 'run'), '--from-scratch', *options, *short]
    assert main(['train', CONFIG, *common, *run]) == 0
    assert main(['test', CONFIG, str(tmp_path / 'run' / 'epoch_1.pth'), *common, *profiled, *options]) == 0
    found = shares((tmp_path / 'profile' / 'profile_test.txt').read_text())
    assert {*PARTS, 'evaluation'} - {'data_preprocessor'} < {*found, 'data_preprocessor'}
    assert not list((tmp_path / 'profile').glob('*/*.json'))  # no metrics
