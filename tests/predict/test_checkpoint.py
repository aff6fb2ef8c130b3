"""Prediction from checkpoints: the values of `test`, configs that are data, batches, work dirs, faults."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmres2net import Predictor
from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.engine.source import read_source
from mmres2net.errors import UserError
from mmres2net.export.preprocess import run_pipeline
from mmres2net.predict.images import decode_mask
from tests.engine.demo import evaluate_demo
from tests.support.cli import run_cli

SCENE = draw_scene(DEFAULT_SPEC, 'val', 1).image
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SCENE[:, :100]).save(tmp_path / 'photo.jpg', exif=exif)
    return tmp_path / 'photo.jpg'


def saved(path: Path, model: tuple[str, str], **changes: object) -> Path:
    cfg = Config.fromfile(model[0])
    cfg.merge_from_dict(changes)
    state = torch.load(model[1], weights_only=True)['state_dict']
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': ('one', 'two', 'three'), 'palette': [(9, 8, 7)] * 3}}
    torch.save({'state_dict': state, 'meta': meta}, path)
    return path


def test_predictions_are_those_of_testing_and_so_are_their_metrics(trained_demo, shapes, tmp_path) -> None:
    coco = pytest.importorskip('pycocotools.coco')
    evaluation = pytest.importorskip('pycocotools.cocoeval')
    tested = evaluate_demo(trained_demo / 'epoch_1.pth', tmp_path / 'run', shapes, '--out', tmp_path / 'found.pkl')
    assert tested.status == 0
    samples = {Path(sample['img_path']).name: sample for sample in pickle.loads((tmp_path / 'found.pkl').read_bytes())}
    ann = shapes / 'annotations' / 'instances_val2017.json'
    flags = ('--ann', ann, '--out', tmp_path / 'out', '--batch', 4, '--device', 'cpu')
    done = run_cli('predict', trained_demo, shapes / 'val2017', *map(str, flags))
    assert (done.status, str(trained_demo) in done.err.splitlines()[0]) == (0, True)
    truth = coco.COCO(str(ann))
    results = truth.loadRes(str(tmp_path / 'out' / 'predictions.json'))
    for number, image in truth.imgs.items():
        got, expected = results.imgToAnns[number], samples[image['file_name']]['pred_instances']
        boxes = np.array([entry['bbox'] for entry in got])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected['bboxes'].numpy(), atol=1e-3)
        np.testing.assert_allclose([entry['score'] for entry in got], expected['scores'].numpy(), atol=1e-5)
    measured = evaluation.COCOeval(truth, results, 'bbox')
    measured.evaluate(), measured.accumulate(), measured.summarize()
    (file,) = (tmp_path / 'run').glob('2*/*.json')
    assert f'{measured.stats[0]:.3f}' == f'{float(re.search(r"bbox_mAP.: ([0-9.]+)", file.read_text())[1]):.3f}'


@pytest.mark.parametrize('name', ['detector', 'segmentor', 'saliency', 'classifier', 'resnet'])
def test_predictions_are_those_of_the_test_pipeline(tiny_models: dict, exports: dict, name: str, photo: Path) -> None:
    """Those of a checkpoint, alone and in a batch; and those of an exported file, up to rounding."""
    source = read_source(*tiny_models[name])
    with torch.no_grad():
        expected = source.model.test_step(run_pipeline(source.cfg, photo))[0]
    predictor = Predictor(tiny_models[name][1], config=tiny_models[name][0], device='cpu')
    image = Image.open(photo)
    others = [np.rot90(SCENE[:, :100], 3).copy()[:60], image, photo]
    found = [predictor(photo), *predictor(others)[1:]]
    if name in ('detector', 'segmentor', 'classifier'):
        found.append(Predictor(exports[f'{name}.onnx'])(photo))
    for got in found:
        if name == 'detector':
            best = expected.pred_instances
            assert len(best) >= 5
            np.testing.assert_allclose(got['boxes'], best.bboxes.numpy(), atol=0.01)
            assert np.array_equal(got['labels'], best.labels.numpy())
            for mask, wanted in zip(got['masks'], best.masks, strict=True):
                assert (decode_mask(mask) != wanted.numpy()).mean() < 3e-4
        elif name in ('segmentor', 'saliency'):
            assert (got['classes'] != expected.pred_sem_seg.data[0].numpy()).mean() < 3e-4
        else:
            np.testing.assert_allclose(got['scores'], expected.pred_score.numpy(), atol=3e-5)
        if name == 'saliency':
            np.testing.assert_allclose(got['saliency'], expected.seg_logits.data[0].numpy(), atol=1e-4)
    assert predictor.draw(photo, found[0]).shape[1] == 160


def test_the_config_and_the_classes_are_those_in_the_checkpoint(tiny_models: dict, tmp_path: Path) -> None:
    path = saved(tmp_path / 'own.pth', tiny_models['detector'])
    predictor = Predictor(path)
    assert predictor.metadata.classes == ('one', 'two', 'three')
    assert predictor.metadata.palette[0] == (9, 8, 7)
    expected = Predictor(tiny_models['detector'][1], config=tiny_models['detector'][0])(SCENE)
    assert np.array_equal(predictor(SCENE)['boxes'], expected['boxes'])
    half = Predictor(path, precision='bf16', device='cpu')(SCENE, score=0.2)
    assert 0 < len(half['scores']) <= len(expected['scores'])
    fewer = Predictor(path, options={'model.test_cfg.rcnn.max_per_img': 3})(SCENE)
    assert len(fewer['scores']) == 3
    for wrong in ({'modle.neck': None}, {'model.neck.num_outs.x': 1}):
        with pytest.raises(UserError):
            Predictor(path, options=wrong)


@pytest.mark.parametrize('flags', [{'device': 'cuda:77'}, {'device': 'abacus'}, {'precision': 'fp8'}, {'threads': 0}])
def test_what_a_machine_does_not_have_is_refused(tiny_models: dict, flags: dict) -> None:
    with pytest.raises(UserError, match=str(next(iter(flags.values())))):
        Predictor(tiny_models['classifier'][1], config=tiny_models['classifier'][0], **flags)


HOSTILE = {
    'program': 'import os\nos.system("touch MARKER")\nmodel = dict(type=os.system("touch MARKER"))',
    'path': 'model = dict(type="os.system", command="touch MARKER")',
    'import': 'model = dict(type="FasterRCNN")\ncustom_imports = dict(imports=["antigravity"])',
    'scope': 'model = dict(type="antigravity.X")',
    'default scope': 'model = dict(type="X")\ndefault_scope = "antigravity"',
    'unpickle': 'model = dict(type="mmengine.load", file="MARKER.bin", file_format="pkl")',
    'eval': "model = dict(test_cfg=dict(rcnn=dict(nms=dict(type=\"__import__('os').system('touch MARKER')\"))))",
    'config': 'model = dict(type="KnowledgeDistillationSingleStageDetector", teacher_config="MARKER.py")',
    'step': 'model = dict()\ntest_dataloader = dict(dataset=dict(pipeline=[dict(type="os.system", command="touch")]))',
    'deep': 'model = ' + 'dict(a=' * 5000 + '1' + ')' * 5000,
}


@pytest.mark.parametrize('name', HOSTILE)
def test_configs_in_checkpoints_are_not_run(tiny_models: dict, tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / 'marker', saved(tmp_path / 'bad.pth', tiny_models['classifier'])
    (tmp_path / 'marker.py').write_text(f'open({str(marker)!r}, "w")')
    (tmp_path / 'marker.bin').write_bytes(pickle.dumps(print))
    content = torch.load(path, weights_only=True)
    content['meta']['cfg'] = HOSTILE[name].replace('MARKER', str(marker))
    torch.save(content, path)
    with pytest.raises(UserError, match='--config' if name != 'unpickle' else ''):
        Predictor(path)
    assert not marker.exists()


def test_a_config_beside_the_checkpoint_is_for_work_dirs(tiny_models: dict, tmp_path: Path) -> None:
    config, checkpoint = tiny_models['classifier']
    shutil.copy(config, tmp_path / 'config.py')
    shutil.copy(checkpoint, tmp_path / 'epoch_3.pth')
    with pytest.raises(UserError, match='--config'):
        Predictor(tmp_path / 'epoch_3.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert 'config.py' in Predictor(tmp_path).metadata.source
    shutil.copy(checkpoint, tmp_path / 'best_accuracy_epoch_1.pth')
    assert 'best_accuracy_epoch_1.pth' in Predictor(tmp_path).metadata.source
    (tmp_path / 'other.py').touch()
    with pytest.raises(UserError, match='--config'):
        Predictor(tmp_path)


def test_checkpoints_that_do_not_fit(tiny_models: dict, exports: dict, tmp_path: Path) -> None:
    other = saved(tmp_path / 'other.pth', tiny_models['classifier'], **{'model.head.num_classes': 7})
    (tmp_path / 'cut.pth').write_bytes(other.read_bytes()[:-2000])
    (tmp_path / 'empty').mkdir()
    alone = (other, tiny_models['classifier'][0], *(tmp_path / name for name in ('cut.pth', 'empty', 'absent.pth')))
    of_another = (tiny_models['detector'][1], tiny_models['classifier'][0])
    for model, config in (of_another, *((path, None) for path in alone)):
        with pytest.raises(UserError, match=re.escape(Path(model).name)):
            Predictor(model, config=config)
    for flags in ({'device': 'cuda'}, {'precision': 'bf16'}, {'options': {'a': 1}}):
        with pytest.raises(UserError, match='--'):
            Predictor(exports['detector.onnx'], **flags)


def test_the_example_of_the_page(trained_demo, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    (tmp_path / 'work_dirs' / 'my_run').symlink_to(trained_demo)
    Image.fromarray(SCENE).save('photo.jpg')
    found: dict = {}
    page = (ROOT / 'docs/predict.md').read_text()
    exec(re.search(r'```python\n(from mmres2net import Predictor.*?)```', page, re.S)[1], found)
    assert found['drawn'].shape == SCENE.shape
    assert "'boxes'" in capsys.readouterr().out
