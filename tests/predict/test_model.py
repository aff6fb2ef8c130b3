"""The runner: without torch or OpenMMLab, the same in every runtime, in the pixels of the image, as testing does."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmres2net import predict
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict.model import ExportedModel
from mmres2net.predict.runtimes import ExportMetadata, Session, parse_metadata
from tests.support.hostile import Payload

ROOT = Path(__file__).resolve().parents[2]
SCENE = draw_scene(DEFAULT_SPEC, 'val', 1).image
BLOCKED = """
import sys
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'scipy', 'matplotlib'):
    sys.modules[name] = None
from mmres2net.predict import job
raise SystemExit(job.main(sys.argv[1:]))
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(SCENE).save(tmp_path / 'scene.png')
    return tmp_path / 'scene.png'


@pytest.mark.parametrize('name', ['detector.onnx', 'segmentor.xml'])
def test_neither_torch_nor_openmmlab_is_imported(exports: dict, name: str, image: Path, tmp_path: Path) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', BLOCKED, str(exports[name]), str(image), '--out', str(tmp_path / 'out'), '--json']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['image'] == str(image)
    assert (tmp_path / 'out' / 'scene.png').is_file()


def test_a_threshold_only_removes_detections(exports: dict) -> None:
    model = predict.load(exports['detector.onnx'])
    every = model.predict(SCENE)
    middle = float(np.median(every['scores']))
    kept = model.predict(SCENE, score=middle)
    assert 0 < len(kept['scores']) < len(every['scores'])
    assert np.array_equal(kept['boxes'], every['boxes'][every['scores'] >= middle])
    assert (np.diff(every['scores']) <= 0).all()
    for score in (0.01, 1.5, float('nan')):
        with pytest.raises(UserError):
            model.predict(SCENE, score=score)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error(value: float) -> None:
    session = Session(ExportMetadata('classification', ('scores',)), lambda image: [np.full((1, 3), value)])
    with pytest.raises(UserError):
        ExportedModel(session).predict([SCENE], 0)


FILES = {'absent.onnx': None, 'model.tflite': b'x', 'epoch_1.pth': b'x', 'alone.xml': b'<net/>'}
FILES |= {f'broken.{suffix}': b'not a model' for suffix in ('onnx', 'pt', 'pt2')}


@pytest.mark.parametrize('name', FILES)
def test_files_that_are_no_models(name: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxruntime')
    if FILES[name] is not None:
        (tmp_path / name).write_bytes(FILES[name])
    with pytest.raises(UserError, match=r'alone\.bin' if name == 'alone.xml' else name):
        predict.load(tmp_path / name)
    assert 'Traceback' not in capfd.readouterr().err


GOOD = ExportMetadata('detection', ('boxes',), transforms=({'type': 'Resize', 'scale': (3, 4)},))


def test_metadata_is_read_back_or_refused() -> None:
    path = Path('model.onnx')
    assert parse_metadata(GOOD.to_json(), path) == GOOD
    content = json.loads(GOOD.to_json())
    changes = [{'version': 99}, {'task': 'x'}, {'outputs': [1]}, {'transforms': [{'type': 'x'}]}]
    changes += [{'unknown': 1}, {'palette': [['r', 'g', 'b']]}, {'score_threshold': 'high'}, {'classes': 7}]
    for text in (None, '', '[]', '[' * 100_000, *(json.dumps({**content, **change}) for change in changes)):
        with pytest.raises(UserError, match=r'model\.onnx'):
            parse_metadata(text, path)


def test_pickles_in_programs_are_not_run(exports: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, marker, bad = exports['classifier.pt2'], tmp_path / 'marker', tmp_path / 'bad.pt2'
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    content = io.BytesIO()
    torch.save(Payload(marker), content)
    with zipfile.ZipFile(program) as good, zipfile.ZipFile(bad, 'w') as archive:
        for item in good.infolist():
            replaced = item.filename.endswith('.pt') and 'sample_inputs' in item.filename
            archive.writestr(item, content.getvalue() if replaced else good.read(item))
    with pytest.raises(UserError):
        predict.load(bad)
    assert not marker.exists()
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)
    assert marker.exists(), 'the payload would have run'
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert predict.load(program).predict(SCENE)['scores'].sum() == pytest.approx(1, abs=1e-5)


def test_a_missing_runtime_names_the_extra(exports: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exports['detector.onnx']
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match='onnxruntime'):
        predict.load(path)
