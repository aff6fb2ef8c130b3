"""COCOMetric in an evaluator, on samples as mmdet hands them over, beside mmdet's own metric."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmres2net.errors import UserError
from mmres2net.evaluation import COCOMetric
from mmres2net.evaluation.coco_protocol import PACKAGES, evaluate
from tests.data.tiny_sets import coco_set
from tests.evaluation.conftest import Build
from tests.evaluation.samples import coco_detections, coco_truth
from tests.support.realdata import data_root

HOST = 'mmdet'
MMDET_NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def sample(image: int, boxes: Any, scores: Any, labels: Any, masks: torch.Tensor | None = None) -> DetDataSample:
    """A sample as a detector of mmdet returns it; boxes are corners."""
    found = InstanceData(
        bboxes=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.as_tensor(scores, dtype=torch.float32),
        labels=torch.as_tensor(labels, dtype=torch.int64),
    )
    if masks is not None:
        found.masks = masks
    return DetDataSample(metainfo={'img_id': image, 'ori_shape': (400, 400)}, pred_instances=found)


def samples_of(truth: dict[str, Any], found: list[dict[str, Any]]) -> list[DetDataSample]:
    label = {category['id']: i for i, category in enumerate(truth['categories'])}
    samples = []
    for image in truth['images']:
        mine = [one for one in found if one['image_id'] == image['id']]
        boxes = np.array([one['bbox'] for one in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        samples.append(
            sample(image['id'], boxes, [one['score'] for one in mine], [label[one['category_id']] for one in mine])
        )
    return samples


def run(evaluator: Evaluator, samples: list[Any]) -> dict[str, float]:
    for i in range(0, len(samples), 2):
        evaluator.process(data_samples=samples[i : i + 2], data_batch=None)
    return evaluator.evaluate(len(samples))


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, Any]:
    """Generated annotations, also written to ``gt.json``."""
    made = coco_truth(12, 4, seed=3)
    (tmp_path / 'gt.json').write_text(json.dumps(made))
    return made


def classes(truth: dict[str, Any]) -> tuple[str, ...]:
    return tuple(category['name'] for category in truth['categories'])


def test_names_and_metrics(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    found = coco_detections(truth, 3, per_image=30)
    evaluator = build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth))
    assert type(evaluator.metrics[0]) is COCOMetric
    metrics = run(evaluator, samples_of(truth, found))
    assert list(metrics) == [
        *(f'coco/bbox_{name}' for name in MMDET_NAMES),
        *(f'coco/bbox_AR@{limit}' for limit in (1, 10, 100)),
        *(f'coco/bbox_AR_{size}@100' for size in 'sml'),
    ]
    # Boxes went through float32 on the way.
    assert list(metrics.values()) == pytest.approx(list(evaluate(truth, found, 'bbox').overall.values()), abs=1e-6)


def test_mmdet_gives_the_same_of_what_it_gives(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    samples = samples_of(truth, coco_detections(truth, 3, per_image=30))
    ours, theirs = (
        run(build({'type': kind, 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)), samples)
        for kind in ('mmres2net.COCOMetric', 'CocoMetric')
    )
    assert {name: round(ours[name], 3) for name in theirs} == theirs
    assert list(theirs) == [f'coco/bbox_{name}' for name in MMDET_NAMES]


def test_all_metrics_keep_to_100_detections_where_mmdet_takes_more(tmp_path: Path, build: Build) -> None:
    """The 150th detection finds the object: it is beyond COCO's limit, in which mmdet keeps the AP but not the AP50."""
    made = coco_truth(1, 2, seed=0)
    made['annotations'] = [dict(made['annotations'][0], category_id=10, iscrowd=0, bbox=[0, 0, 40, 40], area=1600)]
    (tmp_path / 'gt.json').write_text(json.dumps(made))
    boxes = [[300, 300, 340, 340]] * 149 + [[0, 0, 40, 40]]
    samples = [sample(1, boxes, np.linspace(1, 0.1, 150), [0] * 150)]
    ours, theirs = (
        run(build({'type': kind, 'ann_file': str(tmp_path / 'gt.json')}, classes(made)), samples)
        for kind in ('mmres2net.COCOMetric', 'CocoMetric')
    )
    assert ours['coco/bbox_mAP'] == ours['coco/bbox_mAP_50'] == theirs['coco/bbox_mAP'] == 0
    assert theirs['coco/bbox_mAP_50'] == pytest.approx(1 / 150, abs=1e-3)


def test_only_images_that_were_shown_count(
    truth: dict[str, Any], tmp_path: Path, build: Build, logged: list[str]
) -> None:
    found = coco_detections(truth, 3, per_image=30)
    some = [one for one in samples_of(truth, found) if one.img_id <= 6]
    part = {
        'images': truth['images'][:6],
        'categories': truth['categories'],
        'annotations': [one for one in truth['annotations'] if one['image_id'] <= 6],
    }
    metrics = run(build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)), some)
    assert logged == [f'evaluated on 6 of the 12 images of {tmp_path / "gt.json"}']
    expected = evaluate(part, [one for one in found if one['image_id'] <= 6], 'bbox').overall
    assert list(metrics.values()) == pytest.approx(list(expected.values()), abs=1e-6)
    assert (
        metrics['coco/bbox_mAP']
        > 1.3 * evaluate(truth, [d for d in found if d['image_id'] <= 6], 'bbox').overall['mAP']
    )


def test_some_of_the_classes(truth: dict[str, Any], tmp_path: Path, build: Build, logged: list[str]) -> None:
    """A data set of two of the file's four classes; labels count those, the objects of the others are not missed."""
    found = [one for one in coco_detections(truth, 3, per_image=30) if one['category_id'] in (10, 30)]
    fewer = dict(truth, categories=[truth['categories'][0], truth['categories'][2]])
    cfg = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json'), 'classwise': True}
    metrics = run(build(cfg, ['class 1', 'class 3']), samples_of(fewer, found))
    expected = evaluate(truth, found, 'bbox').by_class
    assert f'class 3  {expected["class 3"]["mAP"]:.3f}  {expected["class 3"]["mAP_50"]:.3f}' in logged[-1]
    assert metrics['coco/bbox_AP_class 1'] == pytest.approx(expected['class 1']['mAP'], abs=1e-6)
    assert metrics['coco/bbox_AP_class 3'] == pytest.approx(expected['class 3']['mAP'], abs=1e-6)
    assert metrics['coco/bbox_mAP'] == pytest.approx(
        (metrics['coco/bbox_AP_class 1'] + metrics['coco/bbox_AP_class 3']) / 2, abs=1e-12
    )


def test_save_best_follows_the_ap(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    metrics = run(
        build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)),
        samples_of(truth, []),
    )
    first = next(iter(metrics))
    assert first == 'coco/bbox_mAP'
    assert CheckpointHook(save_best=first).rules == ['greater']


def masked(truth: dict[str, Any]) -> list[DetDataSample]:
    """Rectangular masks, some of them cut in half, beside boxes that are right."""
    samples = []
    for one in samples_of(truth, [dict(one, score=0.5) for one in truth['annotations'] if not one['iscrowd']]):
        boxes = one.pred_instances.bboxes.int()
        masks = torch.zeros(len(boxes), 400, 400, dtype=torch.bool)
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            masks[i, y1:y2, x1 : x2 - (i % 2) * (x2 - x1) // 3] = True
        one.pred_instances.masks = masks
        samples.append(one)
    return samples


@pytest.mark.parametrize('evaluator', PACKAGES)
def test_masks(truth: dict[str, Any], tmp_path: Path, build: Build, evaluator: str) -> None:
    cfg = {
        'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json'), 'metric': ['bbox', 'segm'],
        'evaluator': evaluator, 'outfile_prefix': str(tmp_path / 'new' / 'out'),
    }  # fmt: skip
    metrics = run(build(cfg, classes(truth)), masked(truth))
    assert len(metrics) == 24
    assert metrics['coco/bbox_mAP'] > metrics['coco/segm_mAP'] > 0.3
    assert metrics['coco/segm_mAP_50'] == pytest.approx(metrics['coco/bbox_mAP_50'], abs=1e-12)  # 2/3 of each is left
    # What was written is what was evaluated, and pycocotools reads it.
    for kind in ('bbox', 'segm'):
        written = json.loads((tmp_path / 'new' / f'out.{kind}.json').read_text())
        assert len(COCO(tmp_path / 'gt.json').loadRes(str(tmp_path / 'new' / f'out.{kind}.json')).anns) == len(written)
        assert evaluate(truth, written, kind).overall['mAP'] == pytest.approx(metrics[f'coco/{kind}_mAP'], abs=1e-12)


def test_masks_may_come_encoded_and_with_scores_of_their_own(
    truth: dict[str, Any], tmp_path: Path, build: Build
) -> None:
    cfg = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json'), 'metric': 'segm'}
    plain = run(build(cfg, classes(truth)), masked(truth))
    samples = masked(truth)
    for one in samples:
        masks = one.pred_instances.masks.numpy().astype(np.uint8)
        one.pred_instances.masks = [rle.encode(np.asfortranarray(mask)) for mask in masks]
    assert run(build(cfg, classes(truth)), samples) == plain
    # Whole masks first: of the halves, none precedes a right one at high IoU.
    for one in samples:
        count = len(one.pred_instances)
        one.pred_instances.mask_scores = torch.tensor([0.9, 0.1]).repeat(count)[:count]
    assert run(build(cfg, classes(truth)), samples)['coco/segm_mAP_75'] > plain['coco/segm_mAP_75']


def test_a_split_without_public_annotations(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    bare = {key: truth[key] for key in ('images', 'categories')}
    (tmp_path / 'bare.json').write_text(json.dumps(bare))
    cfg = {
        'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'bare.json'), 'format_only': True,
        'outfile_prefix': str(tmp_path / 'out'),
    }  # fmt: skip
    found = coco_detections(truth, 3)
    assert run(build(cfg, classes(truth)), samples_of(truth, found)) == {}
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert [one['category_id'] for one in written] == [one['category_id'] for one in found]
    assert written[5]['bbox'] == pytest.approx(found[5]['bbox'], abs=1e-4)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'metric': 'proposal'}, 'proposal'),
        ({'metric': ()}, 'bbox'),
        ({'evaluator': 'slow'}, 'slow'),
        ({'format_only': True}, 'outfile_prefix'),
        ({'ann_file': 'nowhere.json'}, 'nowhere.json'),
        ({'outfile_prefix': '/proc/x/out'}, '/proc/x'),
    ],
)
def test_wrong_options_name_the_value(
    truth: dict[str, Any], tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError) as caught:
        COCOMetric(**{'ann_file': str(tmp_path / 'gt.json'), **options})
    assert named in str(caught.value)


@pytest.mark.parametrize(
    'text',
    [
        '{', '[]', '{"images": []}', '{"images": [], "categories": []}', '[' * 100_000, '[1' + '0' * 5000 + ']',
        '{"images": {}, "categories": [], "annotations": []}',
        '{"images": [], "categories": [{"id": 1}], "annotations": []}',
        '{"images": [], "categories": ["class 1"], "annotations": []}',
    ],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / 'gt.json').write_text(text)
    with pytest.raises(UserError, match=str(tmp_path / 'gt.json')):
        COCOMetric(str(tmp_path / 'gt.json'))


@pytest.mark.parametrize(
    ('names', 'named'),
    [
        (['class 1', 'cat'], 'cat'),
        (['class 2', 'class 1'], 'class 2, class 1'),
        (None, 'metainfo.classes'),
        ('class 1', 'metainfo.classes'),
    ],
)
def test_wrong_classes(truth: dict[str, Any], tmp_path: Path, build: Build, names: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, names)


BAD_ENTRIES: dict[str, tuple[str, dict[str, Any], str]] = {
    # metric, what is changed in annotations[3], what the error names beside the entry
    'box of texts': ('bbox', {'bbox': ['1', '2', '3', '4']}, "'1'"),
    'box as text': ('bbox', {'bbox': '[1, 2, 3, 4]'}, '[1, 2, 3, 4]'),
    'box of three': ('bbox', {'bbox': [1, 2, 3]}, '[1, 2, 3]'),
    'box of nothing': ('bbox', {'bbox': None}, 'None'),
    'infinite box': ('bbox', {'bbox': [1, 2, float('inf'), 4]}, 'inf'),
    'box that is not a number': ('bbox', {'bbox': [float('nan'), 2, 3, 4]}, 'nan'),
    'crowd of two': ('bbox', {'iscrowd': 2}, 'iscrowd'),
    'area as text': ('bbox', {'area': '900'}, '900'),
    'no segmentation': ('segm', {'segmentation': []}, 'segmentation'),
    'null segmentation': ('segm', {'segmentation': None}, 'segmentation'),
    'two points': ('segm', {'segmentation': [[1, 1, 9, 9]]}, 'polygon'),
    'polygon of texts': ('segm', {'segmentation': [['1', '1', '9', '1', '9', '9']]}, "'9'"),
    'run lengths of another size': ('segm', {'segmentation': {'size': [9, 9], 'counts': [81]}}, '[9, 9]'),
    'huge run lengths': ('segm', {'segmentation': {'size': [2**40, 2**40], 'counts': [2**80]}}, str(2**40)),
    'run lengths that are too short': ('segm', {'segmentation': {'size': [400, 400], 'counts': 'PP1'}}, '160,000'),
}


@pytest.mark.parametrize('evaluator', PACKAGES)
@pytest.mark.parametrize('case', BAD_ENTRIES)
def test_bad_entries_are_refused_before_the_first_epoch(
    truth: dict[str, Any], tmp_path: Path, build: Build, case: str, evaluator: str
) -> None:
    metric, change, named = BAD_ENTRIES[case]
    truth['annotations'][3] |= change
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    cfg = {
        'type': 'mmres2net.COCOMetric',
        'ann_file': str(tmp_path / 'gt.json'),
        'metric': metric,
        'evaluator': evaluator,
    }
    with pytest.raises(UserError) as caught:
        build(cfg, classes(truth))
    assert f'{tmp_path / "gt.json"}: annotations[3] ' in str(caught.value)
    assert named in str(caught.value)
    # Entries of classes that are not evaluated do no harm.
    others = [c['name'] for c in truth['categories'] if c['id'] != truth['annotations'][3]['category_id']]
    build(cfg, others)


def test_categories_and_images_must_differ(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    cfg = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}
    names = classes(truth)
    twice = dict(truth, categories=[{'id': 0, 'name': 'class 1'}, *truth['categories']])
    (tmp_path / 'gt.json').write_text(json.dumps(twice))
    with pytest.raises(UserError, match=r'class 1.*ids 0, 10'):
        build(cfg, names)
    (tmp_path / 'gt.json').write_text(json.dumps(dict(truth, images=[*truth['images'], truth['images'][0]])))
    with pytest.raises(UserError, match=r'images\[12\]'):
        build(cfg, names)


def test_predictions_that_do_not_fit(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    make = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}
    one = samples_of(truth, [])[0]
    for samples, named in (
        ([one, one], 'image 1'),
        ([sample(99, [], [], [])], 'image 99'),
        ([sample(1, [[0, 0, 9, 9]], [0.5], [4])], 'label 4'),
        ([], 'no image'),
    ):
        with pytest.raises(UserError, match=named):
            run(build(make, classes(truth)), samples)
    make['metric'] = 'segm'
    with pytest.raises(UserError, match='masks'):
        run(build(make, classes(truth)), samples_of(truth, []))
    found = {'bboxes': np.zeros((2, 4)), 'scores': np.zeros(2), 'labels': np.zeros(2, int), 'masks': [{}]}
    with pytest.raises(UserError, match='1 masks for 2'):
        build(make, classes(truth)).metrics[0].process(None, [{'img_id': 1, 'pred_instances': found}])


IDS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    # ids of images and of annotations, from 1, 2, ...
    'from 0': (lambda i: i - 1, lambda i: i - 1),
    'negative': (lambda i: -i, lambda i: -i),
    'texts': (lambda i: f'img-{i}', lambda i: f'box-{i}'),
    'floats': (float, float),
}


@pytest.mark.parametrize('evaluator', PACKAGES)
@pytest.mark.parametrize('case', IDS)
def test_objects_of_a_data_set_as_predictions_are_all_found(
    case: str, evaluator: str, tmp_path: Path, build: Build
) -> None:
    """A file as an exporter writes it, read by mmdet's data set with masks and without ``iscrowd``."""
    made, (image_id, annotation_id) = coco_set(tmp_path, masks=True), IDS[case]
    for content in made.content.values():
        for entry in content['images']:
            entry['id'] = image_id(entry['id'])
        for entry in content['annotations']:
            entry.update(id=annotation_id(entry['id']), image_id=image_id(entry['image_id']))
            del entry['iscrowd']
    made.write()
    node = made.dataset('val')
    node.pipeline = [*node.pipeline, dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))]
    samples = []
    for item in DATASETS.build(node):
        one = item['data_samples']
        truth = one.gt_instances
        masks = torch.from_numpy(truth.masks.masks).bool()
        samples.append(sample(one.img_id, truth.bboxes.tensor, [0.9] * len(truth), truth.labels, masks))
    cfg = made.cfg.val_evaluator | {'evaluator': evaluator}
    metrics = run(build(cfg, ('car', 'dog')), samples)
    assert metrics['coco/bbox_mAP'] == metrics['coco/segm_mAP'] == pytest.approx(1, abs=1e-12)


@pytest.mark.realdata
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_real_images(kind: str, tmp_path: Path, build: Build) -> None:
    """Predictions from COCO's own objects, moved and mixed up: both evaluators and mmdet's metric say the same."""
    ann_file = data_root('coco_mini') / 'annotations' / 'instances_val2017.json'
    coco, rng = COCO(ann_file), np.random.default_rng(0)
    ids, samples = sorted(coco.cats), []
    for image in coco.imgs.values():
        mine = [one for one in coco.imgToAnns[image['id']] if not one['iscrowd']]
        boxes = np.array([one['bbox'] for one in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 0.04, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        labels = [ids.index(one['category_id']) if rng.random() < 0.8 else rng.integers(80) for one in mine]
        masks = [np.roll(coco.annToMask(one), rng.integers(-3, 4, 2), (0, 1)) for one in mine]
        stack = torch.from_numpy(np.stack(masks)).bool() if kind == 'segm' and masks else torch.zeros(0, 8, 8).bool()
        samples.append(
            sample(image['id'], boxes, rng.random(len(mine)).round(2), labels, stack if kind == 'segm' else None)
        )
    names = [coco.cats[id_]['name'] for id_ in ids]
    common = {'ann_file': str(ann_file), 'metric': kind}
    fast, slow = (
        run(build({'type': 'mmres2net.COCOMetric', 'evaluator': name, 'classwise': True, **common}, names), samples)
        for name in PACKAGES
    )
    assert fast == pytest.approx(slow, abs=1e-12)
    assert len(fast) == 12 + 80
    assert 0.1 < fast[f'coco/{kind}_mAP'] < 0.9
    theirs = run(build({'type': 'CocoMetric', **common}, names), samples)
    assert {name: round(fast[name], 3) for name in theirs} == theirs
