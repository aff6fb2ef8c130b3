"""The command that checks data: its exit status, what it prints, writes and draws, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from mmres2net.data.shapes import ShapesSpec, make_shapes
from tests.support.cli import CliResult, run_cli

CONFIG = 'demo/faster_rcnn_r2n50.py'


@pytest.fixture
def copied(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(shapes, tmp_path / 'shapes')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'shapes'


def run(root: Path, *flags: str) -> CliResult:
    return run_cli('check-data', CONFIG, '--data', root, *flags)


def test_sound_data(copied: Path) -> None:
    result = run(copied, '--samples', '2')
    assert (result.status, result.out.splitlines()[-1][:11]) == (0, 'no errors, ')
    assert f'train: CocoDataset {copied}/annotations/instances_train2017.json\n  12 images, ' in result.out
    assert f'val, test: CocoDataset {copied}/annotations/instances_val2017.json\n  6 images, ' in result.out
    names = sorted(path.name for path in Path('work_dirs/check_data/faster_rcnn_r2n50').iterdir())
    assert names == ['train_01.jpg', 'train_02.jpg', 'val_test_01.jpg', 'val_test_02.jpg']


def test_broken_data(copied: Path) -> None:
    folder = copied / 'train2017'
    names = sorted(path.name for path in folder.iterdir())
    for name in names[:3]:
        (folder / name).unlink()
    result = run(copied, '--show', '2', '--out', 'drawn')
    assert (result.status, result.out.splitlines()[-1][:10]) == (1, '3 errors, ')
    assert [str(folder / name) in result.out for name in names[:4]] == [True, True, False, False]
    assert 'and 1 more' in result.out
    assert len(list(Path('drawn').glob('train_*.jpg'))) == 8


def test_training_refuses_the_same(copied: Path) -> None:
    content = json.loads((copied / 'annotations/instances_train2017.json').read_text())
    del content['annotations'][3]['area']
    (copied / 'annotations/instances_train2017.json').write_text(json.dumps(content))
    flags = ('--data', copied, '--from-scratch', '--work-dir', 'run')
    for more in ((), ('--skip-data-check',)):  # without the check, the library fails to read the data
        result = run_cli('train', CONFIG, *flags, *more)
        assert (result.status, 'annotations[3]' in result.err) == (2, True)


def test_chosen_splits_and_no_drawings(copied: Path) -> None:
    shutil.rmtree(copied / 'train2017')
    result = run(copied, '--splits', 'val', '--samples', '0')
    assert (result.status, result.out[:16], Path('work_dirs').exists()) == (0, 'val: CocoDataset', False)


def test_embedded_set_is_made_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ShapesSpec(n_train=5, n_val=5)
    monkeypatch.setattr('mmres2net.engine.check_data.embed', lambda root: make_shapes(root, spec=small))
    result = run_cli('check-data', CONFIG, '--samples', '0')
    assert result.status == 0
    assert 'train: CocoDataset data/shapes/annotations/instances_train2017.json' in result.out


@pytest.mark.parametrize('flags', [
    ['--show', '-1'], ['--samples', '-1'], ['--out', 'file'], ['--out', '/proc/x'],
    ['--data', 'absent'], ['--splits', 'val', '--cfg-options', 'val_dataloader=None'],
])  # fmt: skip
def test_wrong_flags_are_named(shapes: Path, tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / 'file').touch()
    result = run_cli('check-data', CONFIG, '--data', shapes, *flags, cwd=tmp_path)
    assert (result.status, flags[1] in result.err) == (2, True)
    assert not (tmp_path / 'work_dirs').exists()


def test_data_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / 'empty.py').write_text("default_scope = 'mmdet'\n")
    for config, named in (('empty.py', 'empty.py'), ('faster_rcnn_r2n50.py', 'instances_train2017.json')):
        result = run_cli('check-data', config, cwd=tmp_path)
        assert (result.status, named in result.err) == (2, True)
