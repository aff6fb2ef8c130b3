"""The embedded data set: what is drawn, and what happens when it is made, found, damaged or refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmres2net.data import shapes
from mmres2net.data.shapes import ShapesSpec, draw_scene, make_shapes
from mmres2net.errors import UserError
from tests.support.cli import run_cli
from tests.support.folders import contents

TINY = ShapesSpec(n_train=2, n_val=1)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('tiny') / 'set', spec=TINY)


def test_a_scene_is_the_same_everywhere() -> None:
    # Golden: these bits must not change with numpy, Python or the platform; a new value needs a new VERSION.
    digest = hashlib.sha256()
    for split, index in (('train', 0), ('train', 12), ('train', 49), ('val', 5)):
        scene = draw_scene(ShapesSpec(), split, index)
        digest.update(scene.image.tobytes())
        for instance in scene.instances:
            digest.update(instance.mask.tobytes())
    assert digest.hexdigest() == '5d4c084e78708c009e633b01baa0229d0a00107d5e13bd768951276ef955b6f2'


def test_bad_values() -> None:
    for values, message in (
        (dict(n_train=0), r'n_train=0.* 1 to 99999'), (dict(seed=-1), 'seed=-1'), (dict(n_val=1.0), 'n_val=1.0'),
        (dict(n_val=True), 'n_val=True'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ShapesSpec(**values)


def test_two_runs_give_the_same_bytes(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tiny / 'train2017', *(tiny / f'VOCdevkit/VOC{year}/JPEGImages' for year in (2007, 2012))]
    assert len({(path / '000001.jpg').stat().st_ino for path in [*images, tiny / 'saliency/images']}) == 1

    def refuse(*_: object) -> None:
        raise OSError('no links here')

    (tmp_path / 'empty').mkdir()
    assert contents(make_shapes(tmp_path / 'empty', spec=TINY)) == contents(tiny)
    monkeypatch.setattr(os, 'link', refuse)
    assert contents(make_shapes(tmp_path / 'deep/other', spec=TINY)) == contents(tiny)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['deep', 'empty']


def test_a_second_call_changes_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {path: path.stat().st_mtime_ns for path in tiny.rglob('*')}
    monkeypatch.setattr(shapes, 'draw_scene', None)  # drawing again would fail
    assert make_shapes(tiny, spec=TINY) == tiny
    with pytest.raises(UserError, match=r"n_train': 2.*3"):
        make_shapes(tiny, spec=replace(TINY, n_train=3))
    monkeypatch.setattr(shapes, 'VERSION', 2)
    with pytest.raises(UserError, match='version 1, not 2'):
        make_shapes(tiny, spec=TINY)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob('*')} == times


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    code = (
        'import os, sys; from mmres2net.data import shapes\n'
        'shapes._write_lists = lambda *_: os._exit(9)\n'
        'shapes.make_shapes(sys.argv[1], spec=shapes.ShapesSpec(n_train=1, n_val=1))'
    )
    assert subprocess.run([sys.executable, '-c', code, str(tmp_path / 'set')], capture_output=True).returncode == 9
    assert list(tmp_path.iterdir())
    assert not list(tmp_path.rglob(shapes.MANIFEST))
    assert make_shapes(tmp_path / 'set', spec=TINY).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ['set'], 'the temporary folder of the killed run is removed'


def test_the_command_and_its_mistakes(tmp_path: Path) -> None:
    done = run_cli('demo-data', tmp_path / 'set', '--train', '2', '--val', '1', '--seed', '5')
    assert done.status == 0, done.err
    assert json.loads((tmp_path / 'set' / shapes.MANIFEST).read_text())['spec'] == dict(n_train=2, n_val=1, seed=5)
    assert f'2 training and 1 validation images are in {tmp_path}/set' in done.out
    shutil.rmtree(tmp_path / 'set')
    done = run_cli('demo-data', tmp_path / 'set', '--val', '-5')
    assert (done.status, done.err.count('error: '), list(tmp_path.iterdir())) == (2, 1, [])
    assert '-5' in done.err
    (tmp_path / 'thesis.txt').write_text('years of work')
    for root in (tmp_path, tmp_path / 'thesis.txt'):
        done = run_cli('demo-data', root, '--train', '1', '--val', '1')
        assert (done.status, str(root) in done.err) == (2, True)
        with pytest.raises(UserError, match=root.name):
            make_shapes(root, spec=TINY)
    assert contents(tmp_path) == {'thesis.txt': b'years of work'}
    (tmp_path / 'thesis.txt').unlink()
    for text in ('', '[]', '{"name": "shapes", "version": 1}', '[' * 9999, '\x00'):
        (tmp_path / shapes.MANIFEST).write_text(text)
        done = run_cli('demo-data', tmp_path, '--train', '2', '--val', '1')
        assert (done.status, str(tmp_path) in done.err) == (2, True)


def test_the_data_set_needs_neither_torch_nor_another_library() -> None:
    heavy = {'torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'pycocotools'}
    code = f'import sys, mmres2net.data.shapes; print(*sorted({heavy} & sys.modules.keys()))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == '\n'
