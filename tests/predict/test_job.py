"""The command: drawn images, COCO JSON, label maps; broken images and bad flags."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net import predict
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict import job
from mmres2net.predict.metadata import ExportMetadata
from mmres2net.predict.outputs import label_map

SCENE = draw_scene(DEFAULT_SPEC, 'val', 1).image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / 'images'
    for name in ('a.png', 'deep/b.jpg', 'deep/._b.jpg', '.hidden/c.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SCENE).save(folder / name)
    (folder / 'deep' / 'loop').symlink_to(folder)
    return folder


def test_detections_are_written_as_coco(exports: dict, images: Path, tmp_path: Path) -> None:
    mask_api = pytest.importorskip('pycocotools.mask')
    coco_api = pytest.importorskip('pycocotools.coco')
    out = tmp_path / 'out'
    twice = [str(images), str(images / 'a.png')]
    assert job.main([str(exports['detector.onnx']), *twice, '--out', str(out), '--score', '0.06']) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob('*.*')) == ['a.png', 'deep/b.png', 'predictions.json']
    expected = predict.load(exports['detector.onnx']).predict(images / 'a.png', score=0.06)
    coco = coco_api.COCO(str(out / 'predictions.json'))
    assert [coco.cats[1]['name'], coco.imgs[1]['file_name']] == ['disc', str(images / 'a.png')]
    entries = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert len(entries) == len(expected['scores']) > 3
    for index, entry in enumerate(entries):
        left, top, width, height = entry['bbox']
        np.testing.assert_allclose([left, top, left + width, top + height], expected['boxes'][index], rtol=1e-5)
        assert (entry['score'], entry['category_id'] - 1) == (expected['scores'][index], expected['labels'][index])
        mask = coco.annToMask(entry)
        assert np.array_equal(mask, predict.decode_mask(expected['masks'][index]))
        assert entry['area'] == mask.sum() == mask_api.area(entry['segmentation'])
    assert (np.asarray(Image.open(out / 'a.png')) != SCENE).mean() > 0.02


def test_classes_of_pixels_are_written_as_label_maps(exports: dict, images: Path, tmp_path: Path) -> None:
    flags = [str(exports['segmentor.onnx']), str(images / 'a.png'), '--out', str(tmp_path)]
    assert job.main(flags) == 0
    expected = predict.load(exports['segmentor.onnx']).predict(images / 'a.png')['classes']
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'a_labels.png')), expected)
    many = np.array([[0, 300], [7, 65535]])
    assert np.array_equal(np.asarray(label_map(many, ExportMetadata('segmentation', ()))), many)


@pytest.mark.parametrize('name', ['detector', 'segmentor', 'classifier'])
def test_json_has_what_is_predicted(exports: dict, images: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    assert job.main([str(exports[f'{name}.onnx']), str(images / 'a.png'), '--json', '--score', '0.06']) == 0
    content = json.loads(capsys.readouterr().out)
    expected = predict.load(exports[f'{name}.onnx']).predict(images / 'a.png')
    if name == 'detector':
        assert content['detections'][0]['score'] == pytest.approx(float(expected['scores'][0]), abs=1e-5)
        assert content['detections'][0]['segmentation'] == expected['masks'][0]
    elif name == 'segmentor':
        counts = np.bincount(expected['classes'].ravel(), minlength=3) / expected['classes'].size
        assert content['shares'].get('disc', 0) == pytest.approx(counts[0], abs=1e-3)
        assert sum(content['shares'].values()) == pytest.approx(1, abs=1e-3)
    else:
        assert content['classes'][0]['label'] == int(expected['scores'].argmax())
        assert [row['score'] for row in content['classes']] == pytest.approx(sorted(expected['scores'])[::-1], abs=1e-4)


def test_broken_images_are_skipped_and_reported_first(
    exports: dict, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / 'z.jpg').write_bytes((images / 'deep' / 'b.jpg').read_bytes()[:900])
    Image.new('RGB', (1, 4000)).save(images / 'narrow.png')
    out = tmp_path / 'out'
    assert job.main([str(exports['segmentor.onnx']), str(images), '--out', str(out)]) == 1
    said = capsys.readouterr().err
    assert 'z.jpg' in said
    assert 'narrow.png' in said
    assert ((out / 'a.png').is_file(), (out / 'z.png').exists()) == (True, False)
    said_before = []
    monkeypatch.setattr(job.Model, 'predict', lambda *_, **__: said_before.append(capsys.readouterr().err) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.main([str(exports['segmentor.onnx']), str(images)])
    assert 'z.jpg' in said_before[0]
    with pytest.raises(UserError, match=r'z\.jpg'):
        job.main([str(exports['segmentor.onnx']), str(images / 'z.jpg')])


def test_bad_flags_are_refused_before_work(exports: dict, images: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    Image.fromarray(SCENE).save(images / 'a.jpg')
    one = str(images / 'a.png')
    for flags in (
        [str(tmp_path / 'absent.png')],
        [str(tmp_path / 'empty')],
        [str(images), '--out', str(tmp_path / 'x')],  # a.png and a.jpg would have one file
        [one, '--out', str(images)],
        [one, '--out', str(tmp_path / 'file')],
        [one, '--out', '/proc/x'],
        *([one, '--threads', threads] for threads in ('0', '100000')),
        *([one, '--score', score] for score in ('nan', '5')),
    ):
        with pytest.raises(UserError):
            job.main([str(exports['detector.onnx']), *flags])
