"""``--profile``: time is booked once, for the right part; objects are left as they were, and nothing is trained."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmres2net.cli import main
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine import profiling
from mmres2net.engine.profiling import NOTHING_DONE, OPERATORS, OTHER, POST, WAITING, Stopwatch, Timers, part_rows

CONFIG = 'demo/faster_rcnn_r2n50.py'
ONE_IMAGE = 'test_dataloader.batch_size=1'
PARTS = {WAITING, OTHER, 'data_preprocessor', 'backbone', 'neck', 'rpn_head', 'roi_head'}


class Clock:
    """Stands in for the time module: goes on when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling, 'time', clock)
    return clock


def test_an_inner_part_has_its_time_alone(clock: Clock) -> None:
    watch = Stopwatch(lambda: None)
    for part, seconds in (('head', 3.0), ('backbone', 5.0)):
        watch.start(part)
        clock.now += seconds
    watch.stop()
    clock.now += 1.0
    watch.start('head')  # a part that calls itself is one call
    clock.now += 2.0
    watch.stop()
    watch.stop()
    clock.now += 4.0
    watch.book()
    assert dict(watch.seconds) == {'head': 6.0, 'backbone': 5.0, OTHER: 4.0}
    assert dict(watch.calls) == {'head': 1, 'backbone': 1}
    rows = part_rows(watch, 2)
    assert [(row['part'], row['ms_per_step'], row['calls_per_step']) for row in rows] == [
        ('head', 3000.0, 0.5), ('backbone', 2500.0, 0.5), (OTHER, 2000.0, None),
    ]  # fmt: skip
    assert sum(row['share'] for row in rows) == pytest.approx(1)


def test_timers_leave_objects_as_they_were(clock: Clock) -> None:
    watch = Stopwatch(lambda: None)
    timers = Timers(watch)
    layer = nn.Linear(2, 3)
    before = dict(vars(layer))
    timers.add(layer, 'forward', 'layer')
    timers.add(layer, 'forward', 'again')  # the first name stays
    timers.add(layer, 'no_such_method', 'nothing')
    assert layer(torch.ones(1, 2)).shape == (1, 3)
    with pytest.raises(RuntimeError, match='shapes'):
        layer(torch.ones(1, 5))
    assert dict(watch.calls) == {'layer': 2}
    timers.remove()
    assert vars(layer) == before
    layer(torch.ones(1, 2))
    assert dict(watch.calls) == {'layer': 2}


def test_timers_bring_back_what_an_object_had_of_its_own(clock: Clock) -> None:
    class Counted:
        def step(self) -> int:
            return 5

    counted = Counted()
    counted.step = own = lambda: 6  # as schedulers count an optimizer's steps
    own.is_counted = True
    timers = Timers(Stopwatch(lambda: None))
    timers.add(counted, 'step', 'step')
    assert (counted.step(), counted.step.is_counted) == (6, True)
    timers.remove()
    assert counted.step is own


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', spec=ShapesSpec(n_train=8, n_val=8, seed=1))


def options(epochs: int) -> list[str]:
    loaders = [f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')]
    loaders += [f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val', 'test')]
    arch = 'model.backbone.arch=res2net50_18w_4s'
    return ['--cfg-options', *loaders, 'train_dataloader.batch_size=1', f'train_cfg.max_epochs={epochs}', arch]


def profile(work_dir: Path, mode: str) -> dict:
    return json.loads((work_dir / f'profile_{mode}.json').read_text())


def test_training(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ['--data', str(shapes), '--work-dir', str(tmp_path), '--from-scratch', '--profile', '2']
    assert main(['train', CONFIG, *common, *options(1)]) == 0
    said = capsys.readouterr().out
    assert NOTHING_DONE in said
    found = profile(tmp_path, 'train')
    assert (found['steps'], found['batch_size'], found['device']) == (2, 1, 'cpu')
    calls = {row['part']: row['calls_per_step'] for row in found['parts']}
    assert set(calls) == PARTS | {'backward', 'optimizer step'}
    assert calls['backbone'] == calls['neck'] == calls['backward'] == calls[WAITING] == 1
    assert sum(row['share'] for row in found['parts']) == pytest.approx(1)
    assert len(found['operators']) == OPERATORS
    assert all(name in said for name in calls)
    assert not list(tmp_path.rglob('*.pth'))
    assert not (tmp_path / 'pictures').exists()


def test_testing(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ['--data', str(shapes), '--skip-data-check']
    run = ['--work-dir', str(tmp_path / 'run'), '--from-scratch', *options(1), 'train_dataloader.dataset.indices=1']
    assert main(['train', CONFIG, *common, *run, 'val_dataloader.dataset.indices=1']) == 0
    flags = ['--work-dir', str(tmp_path / 'test'), '--profile', '2', '--draw', '9', *options(1), ONE_IMAGE]
    assert main(['test', CONFIG, str(tmp_path / 'run' / 'epoch_1.pth'), *common, *flags]) == 0
    assert NOTHING_DONE in capsys.readouterr().out
    found = profile(tmp_path / 'test', 'test')
    assert found['steps'] == 2
    assert {row['part'] for row in found['parts']} == PARTS | {POST, 'evaluation'}
    assert sum(row['share'] for row in found['parts']) == pytest.approx(1)
    assert len(found['operators']) == OPERATORS
    assert not list((tmp_path / 'test').glob('*/*.json'))  # no metrics
    assert not (tmp_path / 'test' / 'pictures').exists()


def test_a_run_that_is_too_short_says_so(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, 'WARM_UP', 100)
    common = ['--data', str(shapes), '--work-dir', str(tmp_path), '--from-scratch', '--profile']
    assert main(['train', CONFIG, *common, *options(1)]) == 0
    assert 'it has to have more than 100 steps' in capsys.readouterr().out
    assert profile(tmp_path, 'train')['parts'] == []


def test_flags(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ['--data', str(shapes), '--work-dir', str(tmp_path)]
    with pytest.raises(SystemExit):
        main(['train', CONFIG, *where, '--profile', '0'])
    assert '--profile: 0' in capsys.readouterr().err
    assert main(['train', CONFIG, *where, '--profile', '--cfg-options', 'compile=True']) == 2
    assert 'compile=False' in capsys.readouterr().err
    assert main(['test', CONFIG, 'none.pth', *where, '--profile', '--out', str(tmp_path / 'found.pkl')]) == 2
    assert '--out' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
