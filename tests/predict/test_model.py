"""The runner: without torch or a host, in every runtime the same, back in the pixels of the image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net import predict
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict import job
from mmres2net.predict.facts import Facts
from mmres2net.predict.model import Model
from mmres2net.predict.runtimes import Session

ROOT = Path(__file__).resolve().parents[2]
PICTURE = draw_scene(DEFAULT_SPEC, 'val', 1).image
BLOCKED = """
import sys
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2', 'scipy'):
    sys.modules[name] = None
from mmres2net import predict
found = predict.load(sys.argv[1], threads=1).predict(sys.argv[2])
print(sorted((name, value.shape, float(value.sum())) for name, value in found.items()))
"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(PICTURE).save(tmp_path / 'scene.png')
    return tmp_path / 'scene.png'


@pytest.mark.parametrize('name', ['detector.onnx', 'segmentor.onnx', 'detector.xml', 'segmentor.xml'])
def test_neither_torch_nor_openmmlab_is_imported(files: dict, name: str, picture: Path) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', BLOCKED, str(files[name]), str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = predict.load(files[name], threads=1).predict(picture)
    assert done.stdout.strip() == str(sorted((key, value.shape, float(value.sum())) for key, value in found.items()))


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_runtimes_agree(files: dict, task: str) -> None:
    one, other = (predict.load(files[f'{task}{suffix}']).predict(PICTURE) for suffix in ('.onnx', '.xml'))
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.shape == other[name].shape
        assert np.abs(value.astype(float) - other[name]).mean() < 1e-3


def test_predictions_are_in_pixels_of_the_image(files: dict) -> None:
    size = PICTURE.shape[:2]
    found = predict.load(files['detector.onnx']).predict(PICTURE)
    assert found['masks'].shape == (len(found['scores']), *size)
    assert found['boxes'][:, 2].max() > 96, 'wider than the resized image'
    assert (found['boxes'] <= np.array([size[1], size[0]] * 2)).all()
    assert (np.diff(found['scores']) <= 0).all()
    classes = predict.load(files['segmentor.onnx']).predict(PICTURE)['classes']
    assert classes.shape == size


def test_the_host_predicts_the_same(files: dict) -> None:
    """From the file of an image to boxes in it: reading, resizing and all by mmdet's own code against the runner."""
    from mmres2net.export.eager import results_of
    from mmres2net.export.source import read_source
    from mmres2net.predict.images import fitted, resize

    size = fitted(PICTURE.shape[:2], (96, 80), True)
    source = read_source(str(files['detector.py']), str(files['detector.pth']))
    expected = results_of(source, 'detection', resize(PICTURE, size))
    found = predict.load(files['detector.onnx']).predict(PICTURE)
    factors = np.array([PICTURE.shape[1] / size[1], PICTURE.shape[0] / size[0]] * 2)
    np.testing.assert_allclose(found['boxes'], expected['boxes'] * factors, atol=0.05)
    assert np.array_equal(found['labels'], expected['labels'])


def test_a_threshold_only_takes_away(files: dict) -> None:
    model = predict.load(files['detector.onnx'])
    every = model.predict(PICTURE)
    middle = float(np.median(every['scores']))
    sure = model.predict(PICTURE, score=middle)
    assert 0 < len(sure['scores']) < len(every['scores'])
    assert np.array_equal(sure['boxes'], every['boxes'][every['scores'] >= middle])
    with pytest.raises(UserError, match=r'exported with a threshold of 0.05'):
        model.predict(PICTURE, score=0.01)


def test_a_fixed_size_gets_a_frame_and_gives_the_image_back() -> None:
    """The session below gives each pixel's red as its class, and a box around the frame."""
    seen = []

    def run(image: np.ndarray) -> list[np.ndarray]:
        seen.append(image)
        return [np.zeros((1, 1, *image.shape[2:]), np.float32), image[:, 0]]

    facts = Facts('segmentation', ('logits', 'classes'), size=(200, 300), fill=(9, 8, 7))
    image = np.full((100, 120, 3), 50, np.uint8)
    classes = Model(Session(facts, run)).predict(image)['classes']
    assert seen[0].shape == (1, 3, 200, 300)
    assert seen[0][0, :, 199, 299].tolist() == [9, 8, 7]
    assert classes.shape == (100, 120)
    assert (classes == 50).all()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('absent.onnx', None, 'no file'),
        ('model.tflite', b'x', r'the suffix tells the format, one of .onnx, .xml'),
        ('broken.onnx', b'not a model', 'cannot be opened'),
        ('broken.pt', b'not a model', 'cannot be opened'),
        ('alone.xml', b'<net/>', 'weights in alone.bin'),
    ],
)
def test_files_that_are_none(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        predict.load(tmp_path / name)


def test_models_of_others_and_of_the_future_are_refused(files: dict, tmp_path: Path) -> None:
    onnx = pytest.importorskip('onnx')
    for text, message in ((None, 'is no export of mmres2net'), ('{"version": 99}', 'of version 99')):
        model = onnx.load(files['segmentor.onnx'])
        del model.metadata_props[:]
        if text:
            onnx.helper.set_model_props(model, {'mmres2net': text})
        onnx.save(model, tmp_path / 'other.onnx')
        with pytest.raises(UserError, match=message):
            predict.load(tmp_path / 'other.onnx')


def test_a_missing_runtime_names_the_extra(files: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match='onnxruntime'):
        predict.load(files['detector.onnx'])


def test_command_prints_and_draws(files: dict, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'drawn'
    assert job.main([str(files['detector.onnx']), str(tmp_path), '--out', str(out), '--score', '0.05']) == 0
    said = capsys.readouterr().out
    count = len(predict.load(files['detector.onnx']).predict(picture)['scores'])
    assert f'scene.png: {count} found' in said
    assert 'pixels' in said
    drawn = np.asarray(Image.open(out / 'scene.png'))
    assert drawn.shape == PICTURE.shape
    assert (drawn != PICTURE).mean() > 0.02
    assert job.main([str(files['segmentor.xml']), str(picture), '--json']) == 0
    shares = json.loads(capsys.readouterr().out)['shares']
    assert set(shares) <= {'disc', 'square', 'triangle'}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_command_refuses(files: dict, picture: Path, tmp_path: Path) -> None:
    file = str(files['detector.onnx'])
    (tmp_path / 'empty').mkdir()
    Image.fromarray(PICTURE).save(tmp_path / 'scene.jpg')
    for flags, message in (
        ([str(tmp_path / 'absent.png')], 'no image'),
        ([str(tmp_path / 'empty')], 'no image in this folder'),
        ([str(tmp_path), '--out', str(tmp_path / 'x')], 'two images would become'),
        ([str(picture), '--out', str(tmp_path)], 'would replace'),
        ([str(picture), '--threads', '0'], 'choose 1 or more'),
    ):
        with pytest.raises(UserError, match=message):
            job.main([file, *flags])
