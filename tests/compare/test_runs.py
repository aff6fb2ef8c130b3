"""Which runs can be compared: tested once and kept; what does not belong together is an error, never left out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmres2net.compare.comparison import compare, published_of
from mmres2net.compare.result import CHECKPOINTS, RECIPES, Run, as_json
from mmres2net.compare.runs import Evaluated, check_comparable, read_sides, relative, source_of
from mmres2net.engine.config import load_config
from mmres2net.engine.provenance import made_from
from mmres2net.errors import UserError
from mmres2net.evaluation.matches import match
from mmres2net.evaluation.per_image import collected
from tests.compare.samples import CLASSES, classified, record, segmented
from tests.compare.test_page import check_page
from tests.evaluation.samples import coco_detections, coco_truth
from tests.support.cli import run_cli

Change = Callable[[dict[str, Any]], Any]


def run(arrays: dict[str, Any], *, sha256: str = '0', seed: int = 0, model: str = 'm') -> Evaluated:
    made = Run('f', 'model = dict()', 'c.py', 'x.pth', sha256, seed, {}, '', '', '')
    return Evaluated(made, arrays, Config({'model': {'type': model}}))


def of_classes(side: int, images: int = 60) -> dict[str, Any]:
    return dict(collected(classified(100).sides[side][:images], CLASSES))


def of_boxes(seed: int, images: int = 60) -> dict[str, Any]:
    truth = coco_truth(images, 4, 0)
    names = [one['name'] for one in truth['categories']]
    records = [record(i, 'detection', image=f'/data/{i}.jpg', truth_hash=i) for i in range(1, images + 1)]
    return dict(collected(records, names, {'bbox': match(truth, coco_detections(truth, seed), 'bbox')}))


def of_pixels(side: int) -> dict[str, Any]:
    return dict(collected(segmented(60).sides[side], CLASSES))


def sides(*arrays: dict[str, Any]) -> dict[str, list[Evaluated]]:
    return {name: [run(one, sha256=name)] for name, one in zip('ABCD', arrays, strict=False)}


def set_to(key: str, value: Callable[[Any], Any]) -> Change:
    return lambda arrays: arrays.__setitem__(key, value(arrays[key]))


@pytest.mark.parametrize(('change', 'named'), [
    (set_to('task', lambda old: np.array('segmentation')), 'detection and segmentation'),
    (set_to('classes', lambda old: old[::-1]), 'another order'),
    (set_to('classes', lambda old: np.append(old[:-1], 'lynx')), 'lynx'),
    (set_to('images', lambda old: np.append(old[:-1], '/data/other.jpg')), 'other.jpg'),
    (set_to('images', lambda old: old[::-1]), 'another order'),
    (set_to('truth_hash', lambda old: old + (old == 3)), '1 images are annotated differently: 3.jpg'),
    (set_to('bbox.ignored', lambda old: ~old), 'different annotations'),
    (lambda arrays: [arrays.update({key.replace('bbox', 'segm'): arrays[key]}) for key in list(arrays)], 'metrics'),
])  # fmt: skip
def test_runs_that_do_not_belong_together(change: Change, named: str) -> None:
    other = of_boxes(2)
    change(other)
    with pytest.raises(UserError, match=named) as caught:
        check_comparable(sides(of_boxes(1), other))
    assert 'A (f)' in str(caught.value)


def test_few_images_equal_checkpoints_and_equal_seeds_are_named() -> None:
    assert check_comparable(sides(of_classes(0), of_classes(1))) == []
    assert 'Only 20 images' in check_comparable(sides(of_classes(0, 20), of_classes(1, 20)))[0]
    with pytest.raises(UserError, match='1 image'):
        check_comparable(sides(of_classes(0, 1), of_classes(1, 1)))
    one = of_classes(0)
    assert 'same checkpoint' in check_comparable({'A': [run(one)], 'B': [run(one)]})[0]
    with pytest.raises(UserError, match='named twice'):
        check_comparable({'A': [run(one), run(one)], 'B': [run(one, sha256='1')]})
    with pytest.raises(UserError, match='different models'):
        check_comparable({'A': [run(one), run(one, sha256='1', model='n')], 'B': [run(one, sha256='2')]})
    found = check_comparable({'A': [run(one), run(one, sha256='1')], 'B': [run(one, sha256='2')]})
    assert ['same seed' in found[0], 'single seed' in found[1], len(found)] == [True, True, 2]


def test_names_of_two_machines() -> None:
    assert relative(['/data/val/a/1.jpg', '/data/val/b/1.jpg']) == relative(['D:\\x\\a\\1.jpg', 'D:\\x\\b\\1.jpg'])
    assert relative(['/data/1.jpg']) == relative(['1.jpg']) == ['1.jpg']


@pytest.mark.parametrize(('texts', 'named'), [
    (['A=', 'B=x'], 'no such folder'), (['A=nowhere'], "'nowhere'"), (['empty', 'empty'], '0'),
    (['one', 'one'], 'no checkpoint'), (['demo/faster_rcnn_r50:a.pth'], 'two sides'),
    (['A=demo/faster_rcnn_r50:a.pth', 'A=demo/faster_rcnn_r50:b.pth'], "'A'"),
    (['A=demo/faster_rcnn_r50:a.pth,', 'B=x:y'], "RUN ''"),
])  # fmt: skip
def test_mistakes_on_the_command_line(texts: list[str], named: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('one').mkdir()
    Path('one/c.py').write_text('model = dict()')
    with pytest.raises(UserError, match=named):
        read_sides(texts)


def test_configs_of_libraries_and_urls_of_checkpoints() -> None:
    source = source_of('mmdet::faster-rcnn_r50_fpn_1x_coco:https://host/a.pth')
    assert (source.config, source.checkpoint) == ('mmdet::faster-rcnn_r50_fpn_1x_coco', 'https://host/a.pth')
    assert [len(runs) for runs in read_sides(['A=x:1,x:2,x:3', 'B=y:1']).values()] == [3, 1]


@pytest.mark.parametrize('arrays', [of_boxes, of_classes, of_pixels])
def test_a_comparison_is_antisymmetric_and_0_with_itself(arrays: Callable[[int], dict[str, Any]]) -> None:
    one, other = arrays(0), arrays(1)
    there, back, same = (
        compare(sides(*pair), samples=50, seed=1, command='') for pair in ((one, other), (other, one), (one, one))
    )
    json.loads(as_json(there))
    assert there.level == CHECKPOINTS
    for part in ('metrics', 'by_class', 'errors'):
        for a, b, zero in zip(*(getattr(result, part) for result in (there, back, same)), strict=True):
            d, e = a.differences[0], b.differences[0]
            expected = None if d.value is None else [-d.value, -d.high, -d.low]
            assert expected is None or [e.value, e.low, e.high] == pytest.approx(expected, abs=1e-10)
            assert zero.differences[0].value in (0, None)
            assert zero.differences[0].high in (0, None)
    assert any(row.differences[0].value for row in there.metrics)


def test_several_seeds_are_recipes() -> None:
    one, other = of_classes(0), of_classes(1)
    seeds = {name: [run(a, sha256=f'{name}{i}', seed=i) for i, a in enumerate((one, other))] for name in 'AB'}
    result = compare(seeds, samples=200, seed=1, command='')
    row = result.metrics[0]
    assert (result.level, result.banners, row.differences[0].value) == (RECIPES, (), 0)
    values = [compare(sides(a, one), samples=5, seed=1, command='').metrics[0].sides[0].value for a in (one, other)]
    assert row.sides[0].value == pytest.approx(np.mean(values))
    assert row.differences[0].low < -abs(values[0] - values[1])  # the seeds differ


def test_published_values_are_of_the_same_model_and_data() -> None:
    cfg = load_config('faster_rcnn_r50_c4')
    assert published_of(cfg)['metrics']['box AP'] == 31.1
    cfg.model.roi_head.bbox_head.num_classes = 3
    assert published_of(cfg) == {}


def test_a_run_is_tested_once_and_again_when_its_data_change(trained_demo: Path, shapes: Path, tmp_path: Path) -> None:
    folder, data = shutil.copytree(trained_demo, tmp_path / 'run'), shutil.copytree(shapes, tmp_path / 'shapes')
    (checkpoint,) = folder.glob('epoch_*.pth')
    settings = min(folder.glob('*.py'))
    command = ('compare', f'A={folder}', f'B={settings}:{checkpoint}', '--data', data, '--out', tmp_path / 'out')
    flags = ('--samples', '200', '--no-cost')
    (tmp_path / 'other.py').write_text(f'_base_ = "{settings}"\nmodel = dict(_delete_=1, type="mmseg.EncoderDecoder")')
    done = run_cli('compare', command[1], f'B=other.py:{checkpoint}', *command[3:5], cwd=tmp_path)
    assert (done.status, 'different tasks' in done.err, (folder / 'compared').exists()) == (2, True, False), done.err
    done = run_cli(*command, *flags, cwd=tmp_path)
    assert (done.status, 'same checkpoint' in done.out) == (0, True), done.err
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert {row['differences'][0]['value'] for row in report['metrics']} == {0}
    kept = folder / 'compared/evaluation/matches.npz'
    first = kept.stat().st_mtime_ns
    assert run_cli(*command, *flags, cwd=tmp_path).status == 0
    assert kept.stat().st_mtime_ns == first
    file = data / 'annotations/instances_val2017.json'
    content = json.loads(file.read_text())
    content['annotations'] = content['annotations'][1:]
    file.write_text(json.dumps(content))
    assert run_cli(*command, *flags, cwd=tmp_path).status == 0
    assert kept.stat().st_mtime_ns > first


@pytest.mark.parametrize('size', [100, 100_000])
def test_images_that_change_and_keep_their_size_are_noticed(tmp_path: Path, size: int) -> None:
    checkpoint, image = tmp_path / 'a.pth', tmp_path / 'data/a.png'
    image.parent.mkdir()
    checkpoint.write_bytes(b'weights')
    cfg, found = Config({'test_dataloader': {'dataset': {'data_root': str(image.parent)}}}), []
    for content in (b'a', b'b'):
        image.write_bytes(content * size)
        found.append(made_from(cfg, str(checkpoint))['data'])
    assert found[0] != found[1]


def test_report_of_a_detector_and_of_one_that_confuses_classes(trained_demo: Path, tmp_path: Path) -> None:
    for name in ('good', 'bad'):
        shutil.copytree(trained_demo, tmp_path / name)
    file = tmp_path / 'bad/epoch_1.pth'
    content = torch.load(file, weights_only=False)
    content['state_dict']['roi_head.bbox_head.fc_cls.weight'].neg_()
    torch.save(content, file)
    report = tmp_path / 'report'
    runs = [f'<b>good</b>={tmp_path / "good"}', f'bad={tmp_path / "bad"}']
    done = run_cli('compare', *runs, '--out', report, '--samples', '200')
    assert done.status == 0, done.err
    content = json.loads((report / 'report.json').read_text())
    page = check_page((report / 'report.html').read_text())
    for value in (side['value'] for row in content['metrics'] for side in row['sides']):
        assert value is None or f'{value:.2f}' in page.text
    assert [one for one in content['settings'] if not one['belongs']] == []
    assert [side['name'] for side in content['sides']] == ['<b>good</b>', 'bad']
    assert 'b' not in {tag for tag, _ in page.tags}
    assert 'not of the architectures' in ' '.join(page.text.split())
    drawn = [attributes for tag, attributes in page.tags if tag == 'img' and 'jpeg' in attributes['src'][:20]]
    assert (len(drawn) >= 12, len(drawn) % 3, 'left out' in page.text) == (True, 0, False)
    for cost in content['costs']:
        assert cost['parameters'] > 18e6
        assert cost['milliseconds']['low'] <= cost['milliseconds']['value'] <= cost['milliseconds']['high']
        assert cost['memory'] > 160 * 160 * 64  # the features of the first stage
