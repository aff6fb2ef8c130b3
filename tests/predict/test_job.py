"""The command: drawn images, COCO JSON, label maps; broken images and bad flags."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from mmres2net import predict
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict import job
from mmres2net.predict.model import ExportedModel
from mmres2net.predict.results import label_map
from mmres2net.predict.runtimes import ExportMetadata

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
    out = tmp_path / 'out'
    twice = [str(images), str(images / 'a.png')]
    assert job.main([str(exports['detector.onnx']), *twice, '--out', str(out), '--score', '0.06']) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob('*.*')) == ['a.png', 'deep/b.png', 'predictions.json']
    expected = (model := predict.load(exports['detector.onnx'])).predict(images / 'a.png', score=0.06)
    coco = COCO(str(out / 'predictions.json'))
    assert [coco.cats[1]['name'], coco.imgs[1]['file_name']] == ['disc', str(images / 'a.png')]
    entries = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert len(entries) == len(expected['scores']) > 3
    for index, entry in enumerate(entries):
        left, top, width, height = entry['bbox']
        np.testing.assert_allclose([left, top, left + width, top + height], expected['boxes'][index], rtol=1e-5)
        assert (entry['score'], entry['category_id'] - 1) == (expected['scores'][index], expected['labels'][index])
        mask = coco.annToMask(entry)
        assert np.array_equal(mask, predict.decode_mask(expected['masks'][index]))
        assert entry['area'] == mask.sum() == coco_masks.area(entry['segmentation'])
    assert np.array_equal(np.asarray(Image.open(out / 'a.png')), model.draw(SCENE, expected))


@pytest.mark.parametrize('name', ['detector', 'segmentor', 'classifier'])
def test_json_and_maps_have_what_is_predicted(exports, images, tmp_path, name, capsys) -> None:
    flags = ['--json', '--score', '0.06', '--out', str(tmp_path)]
    assert job.main([str(exports[f'{name}.onnx']), str(images / 'a.png'), *flags]) == 0
    content = json.loads(capsys.readouterr().out)
    expected = predict.load(exports[f'{name}.onnx']).predict(images / 'a.png')
    if name == 'detector':
        assert content['detections'][0]['score'] == pytest.approx(float(expected['scores'][0]), abs=1e-5)
        assert content['detections'][0]['segmentation'] == expected['masks'][0]
    elif name == 'segmentor':
        counts = np.bincount(expected['classes'].ravel(), minlength=3) / expected['classes'].size
        assert content['shares'].get('disc', 0) == pytest.approx(counts[0], abs=1e-3)
        assert sum(content['shares'].values()) == pytest.approx(1, abs=1e-3)
        assert np.array_equal(np.asarray(Image.open(tmp_path / 'a_labels.png')), expected['classes'])
        many = np.array([[0, 300], [7, 65535]])
        assert np.array_equal(np.asarray(label_map(many, ExportMetadata('segmentation', ()))), many)
    else:
        assert content['classes'][0]['label'] == int(expected['scores'].argmax())
        assert [row['score'] for row in content['classes']] == pytest.approx(sorted(expected['scores'])[::-1], abs=1e-4)


def test_broken_images_are_skipped_and_listed(tiny_models, exports, images, tmp_path, capsys) -> None:
    (images / 'deep' / 'a.jpg').write_bytes((images / 'deep' / 'b.jpg').read_bytes()[:900])
    Image.new('RGB', (1, 4000)).save(images / 'narrow.png')
    out, model = tmp_path / 'out', str(exports['segmentor.onnx'])
    assert job.main([model, str(images), '--out', str(out)]) == 1
    printed = capsys.readouterr()
    skipped = [line for line in printed.err.splitlines() if line.startswith('skipped')]
    assert [line.count('a.jpg') + line.count('narrow.png') for line in skipped] == [1, 1, 2]
    assert [name for name in ('a.png', 'b.png') if name in printed.out.replace('.jpg', '.png')] == ['a.png', 'b.png']
    assert sorted(path.name for path in out.rglob('*.png')) == ['a.png', 'a_labels.png', 'b.png', 'b_labels.png']
    with pytest.raises(UserError, match=r'a\.jpg'):
        job.main([model, str(images / 'deep' / 'a.jpg')])
    config, checkpoint = tiny_models['segmentor']
    flags = ['--config', config, '--batch', '8', '--device', 'cpu']
    assert job.main([checkpoint, str(images / 'a.png'), str(images / 'narrow.png'), *flags]) == 1
    assert 'a.png' in capsys.readouterr().out


def test_bad_flags_are_refused_before_work(exports: dict, images: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    Image.fromarray(SCENE).save(images / 'a.jpg')
    one = str(images / 'a.png')
    wrong = [[str(images), '--out', str(tmp_path / 'x')]]  # a.png and a.jpg would have one file
    wrong += [[str(tmp_path / name)] for name in ('absent.png', 'empty')]
    wrong += [[one, '--out', out] for out in (str(images), str(tmp_path / 'file'), '/proc/x')]
    wrong += [[one, *flag.split()] for flag in ('--threads 100000', '--batch 2', '--score nan', '--score 5')]
    for flags in wrong:
        with pytest.raises(UserError):
            job.main([str(exports['detector.onnx']), *flags])


@pytest.fixture
def video(tmp_path: Path) -> Path:
    cv2 = pytest.importorskip('cv2')
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 12, SCENE.shape[1::-1])
    for shift in range(5):
        writer.write(np.roll(SCENE, 4 * shift, 1)[..., ::-1])
    writer.release()
    return tmp_path / 'clip.mp4'


@pytest.mark.parametrize('name', ['detector', 'segmentor', 'classifier'])
def test_videos_keep_size_rate_and_number_of_frames(exports, video, name, tmp_path, capsys) -> None:
    import cv2

    assert job.main([str(exports[f'{name}.onnx']), str(video), '--out', str(tmp_path / 'out'), '--json']) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line['frame'] for line in lines] == [1, 2, 3, 4, 5]
    assert len({json.dumps({**line, 'frame': 0}) for line in lines}) > (name != 'segmentor')
    capture = cv2.VideoCapture(str(tmp_path / 'out' / 'clip.mp4'))
    frames = [capture.read()[1] for _ in range(5)]
    assert (capture.get(cv2.CAP_PROP_FPS), capture.read()[0]) == (12, False)
    assert {frame.shape for frame in frames} == {SCENE.shape}
    names = {path.name for path in (tmp_path / 'out').iterdir()} - {'clip.mp4'}
    assert names == {'detector': {'predictions.json'}, 'segmentor': set(), 'classifier': {'predictions.csv'}}[name]


def test_patterns_name_images_and_a_second_run_leaves_its_results_out(exports, images, capsys) -> None:
    flags = [str(exports['classifier.onnx']), str(images), str(images / '**' / '*.jpg'), '--out', str(images / 'out')]
    for _ in range(2):
        assert job.main(flags) == 0
        assert capsys.readouterr().out.count('.jpg:') == 1
    rows = list(csv.DictReader((images / 'out' / 'predictions.csv').open()))[::3]
    assert [(row['image'], row['rank']) for row in rows] == [(str(images / p), '1') for p in ('a.png', 'deep/b.jpg')]
    for pattern in ('*.svg', 'nothing/*'):
        with pytest.raises(UserError):
            job.main([flags[0], str(images / pattern)])


def test_what_was_done_before_an_interruption_is_kept(exports, images, tmp_path, monkeypatch, capsys) -> None:
    predict_one = ExportedModel.predict

    def stop_at_second(model: ExportedModel, sources: list, score: float) -> list:
        if (tmp_path / 'out' / 'a.png').exists():
            raise KeyboardInterrupt
        return predict_one(model, sources, score)

    monkeypatch.setattr(ExportedModel, 'predict', stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        job.main([str(exports['detector.onnx']), str(images), '--out', str(tmp_path / 'out')])
    content = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [image['file_name'] for image in content['images']] == [str(images / 'a.png')]
    assert '1' in capsys.readouterr().err.splitlines()[-1]


def test_annotations_that_do_not_fit_are_refused_before_work(exports: dict, images: Path, tmp_path: Path) -> None:
    ann = {'images': [{'id': 7, 'file_name': 'images/a.png'}], 'categories': [{'id': 4, 'name': 'disc'}]}
    classes = [{'id': k, 'name': name} for k, name in ((4, 'disc'), (9, 'square'), (2, 'triangle'))]
    flags = [str(exports['detector.onnx']), str(images / 'a.png'), '--ann', str(tmp_path / 'ann.json')]
    out = ['--out', str(tmp_path / 'out')]
    for content in ('[', '[]', json.dumps(ann), json.dumps({**ann, 'images': [], 'categories': classes})):
        (tmp_path / 'ann.json').write_text(content)
        with pytest.raises(UserError, match='--ann'):
            job.main([*flags, *out])
    assert not list(tmp_path.glob('out/*'))
    (tmp_path / 'ann.json').write_text(json.dumps({**ann, 'categories': classes}))
    for wrong in (flags, [str(exports['classifier.onnx']), *flags[1:], *out]):
        with pytest.raises(UserError, match='--ann'):
            job.main(wrong)
    assert job.main([*flags, *out]) == 0
    results = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {entry['image_id'] for entry in results} == {7}
    assert {entry['category_id'] for entry in results} <= {4, 9, 2}
    assert job.main([*flags, *out, '--score', '0.6']) == 0
    best = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(best) == sum(entry['score'] >= 0.6 for entry in results) > 0
