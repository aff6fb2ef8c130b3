"""The command that checks data: its exit status, what it prints, writes and draws, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.check_data import main
from mmres2net.errors import UserError
from tests.support.realdata import data_root

CONFIG = 'demo/faster_rcnn_r2n50.py'


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('check') / 'shapes', spec=ShapesSpec(n_train=12, n_val=6))


@pytest.fixture
def shapes(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the set; the working folder is beside it."""
    shutil.copytree(sound, tmp_path / 'shapes')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'shapes'


def run(shapes: Path, *flags: str) -> int:
    return main([CONFIG, '--data', str(shapes), '--workers', '2', *flags])


def test_sound_data(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shapes, '--samples', '2') == 0
    printed = capsys.readouterr().out
    assert f'train: CocoDataset {shapes}/annotations/instances_train2017.json\n  12 images, ' in printed
    assert f'val, test: CocoDataset {shapes}/annotations/instances_val2017.json\n  6 images, ' in printed
    assert printed.splitlines()[-1].startswith('no errors, ')
    folder = Path('work_dirs/check_data/faster_rcnn_r2n50')
    assert f'4 samples drawn: {folder}/' in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        'train_01.jpg', 'train_02.jpg', 'val_test_01.jpg', 'val_test_02.jpg'
    ]  # fmt: skip
    with Image.open(folder / 'train_01.jpg') as image:
        assert image.width >= 640


def test_broken_data(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in (shapes / 'train2017').iterdir())
    for name in names[:3]:
        (shapes / 'train2017' / name).unlink()
    assert run(shapes, '--show', '2', '--json', 'report.json', '--out', 'drawn') == 1
    printed = capsys.readouterr().out
    place = shapes / 'train2017'
    assert f'error: 3 x missing image (named by the annotations, but not there)\n      {place / names[0]}\n' in printed
    assert f'      {place / names[1]}\n      and 1 more\n' in printed
    assert str(place / names[2]) not in printed
    assert printed.splitlines()[-1].startswith('3 errors, ')
    assert len(list(Path('drawn').glob('train_*.jpg'))) == 8
    content = json.loads(Path('report.json').read_text())
    assert (content['config'], content['errors']) == (CONFIG, 3)
    train, val = content['splits']
    assert [entry['where'] for entry in train['errors']['missing image']] == [str(place / name) for name in names[:3]]
    assert (train['images'], val['images'], val['errors']) == (12, 6, {})
    assert sum(train['classes'].values()) == train['annotations']


def test_chosen_splits_and_no_pictures(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(shapes / 'train2017')
    assert run(shapes, '--splits', 'val', '--samples', '0') == 0
    assert capsys.readouterr().out.startswith('val: CocoDataset')
    assert not Path('work_dirs').exists()


def test_embedded_set_is_made_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        'mmres2net.engine.check_data.embed', lambda root: make_shapes(root, spec=ShapesSpec(n_train=5, n_val=5))
    )
    assert main([CONFIG, '--samples', '0', '--workers', '1']) == 0
    assert 'train: CocoDataset data/shapes/annotations/instances_train2017.json' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--show', '-1'], '--show -1: choose 0 or more'),
        (['--samples', '-1'], '--samples -1: choose 0 or more'),
        (['--workers', '0'], '--workers 0: choose 1 or more'),
        (['--json', 'absent/report.json'], '--json absent/report.json: not a file in a folder that exists'),
        (['--json', '.'], '--json .: not a file'),
        (['--out', 'file'], '--out file: a file; name a folder'),
        (['--data', 'absent'], '--data absent: no such folder'),
        (['--cfg-options', 'val_dataloader=None', '--splits', 'val'], 'has no data set for val; it has train'),
    ],
)
def test_mistakes(shapes: Path, flags: list[str], message: str) -> None:
    Path('file').touch()
    with pytest.raises(UserError) as caught:
        run(shapes, *flags)
    assert message in str(caught.value)
    assert not Path('work_dirs').exists()


def test_config_without_data(tmp_path: Path) -> None:
    (tmp_path / 'empty.py').write_text("default_scope = 'mmdet'\n")
    with pytest.raises(UserError, match=r'has no data set for training, validation or test; it has none'):
        main([str(tmp_path / 'empty.py')])


def test_data_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'--data DIR') as caught:
        main(['faster_rcnn_r2n50.py'])
    assert 'data/coco/annotations/instances_train2017.json' in str(caught.value)


@pytest.mark.realdata
def test_real_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(data_root('coco_mini'))
    assert main(['faster_rcnn_r2n50.py', '--data', root, '--splits', 'val', '--out', str(tmp_path / 'drawn')]) == 0
    printed = capsys.readouterr().out
    assert '80 images, 815 annotations (11 crowd), 80 of 80 classes in use' in printed
    assert len(list((tmp_path / 'drawn').iterdir())) == 8
