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
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmres2net.errors import UserError
from mmres2net.evaluation import COCOMetric
from tests.evaluation.conftest import Build
from tests.evaluation.samples import coco_detections, coco_truth, run
from tests.evaluation.test_coco_protocol import evaluate
from tests.support.realdata import data_root

HOST = 'mmdet'
Metric = Callable[..., Evaluator]
Truth = dict[str, Any]
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


def samples_of(truth: Truth, found: list[dict[str, Any]]) -> list[DetDataSample]:
    label = {category['id']: i for i, category in enumerate(truth['categories'])}
    samples = []
    for image in truth['images']:
        mine = [one for one in found if one['image_id'] == image['id']]
        boxes = np.array([one['bbox'] for one in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [label[one['category_id']] for one in mine]
        samples.append(sample(image['id'], boxes, [one['score'] for one in mine], labels))
    return samples


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, Any]:
    """Generated annotations, also written to ``gt.json``."""
    made = coco_truth(12, 4, seed=3)
    (tmp_path / 'gt.json').write_text(json.dumps(made))
    return made


def classes(truth: Truth) -> tuple[str, ...]:
    return tuple(category['name'] for category in truth['categories'])


@pytest.fixture
def metric(truth: Truth, tmp_path: Path, build: Build) -> Metric:
    """Build an evaluator of the annotations in ``gt.json``, of their classes unless others are given."""
    own = classes(truth)

    def make(names: Any = own, kind: str = 'mmres2net.COCOMetric', **options: Any) -> Evaluator:
        return build({'type': kind, 'ann_file': str(tmp_path / 'gt.json'), **options}, names)

    return make


def test_names_and_metrics_are_the_protocols_and_mmdets(truth: Truth, metric: Metric) -> None:
    found = coco_detections(truth, 3, per_image=30)
    evaluator, samples = metric(), samples_of(truth, found)
    assert type(evaluator.metrics[0]) is COCOMetric
    metrics = run(evaluator, samples)
    assert list(metrics) == [
        *(f'coco/bbox_{name}' for name in MMDET_NAMES),
        *(f'coco/bbox_AR@{limit}' for limit in (1, 10, 100)),
        *(f'coco/bbox_AR_{size}@100' for size in 'sml'),
    ]
    assert CheckpointHook(save_best=next(iter(metrics))).rules == ['greater']
    # Boxes went through float32 on the way.
    assert list(metrics.values()) == pytest.approx(list(evaluate(truth, found, 'bbox').overall.values()), abs=1e-6)
    theirs = run(metric(kind='CocoMetric'), samples)
    assert {name: round(metrics[name], 3) for name in theirs} == theirs
    assert list(theirs) == [f'coco/bbox_{name}' for name in MMDET_NAMES]


def test_all_metrics_keep_to_100_detections(truth: Truth, tmp_path: Path, metric: Metric) -> None:
    """The 150th detection finds the object: it is beyond COCO's limit, in which mmdet keeps the AP but not the AP50."""
    made = coco_truth(1, 4, seed=0)
    made['annotations'] = [dict(made['annotations'][0], category_id=10, iscrowd=0, bbox=[0, 0, 40, 40], area=1600)]
    (tmp_path / 'gt.json').write_text(json.dumps(made))
    boxes = [[300, 300, 340, 340]] * 149 + [[0, 0, 40, 40]]
    samples = [sample(1, boxes, np.linspace(1, 0.1, 150), [0] * 150)]
    ours, theirs = (run(metric(kind=kind), samples) for kind in ('mmres2net.COCOMetric', 'CocoMetric'))
    assert ours['coco/bbox_mAP'] == ours['coco/bbox_mAP_50'] == theirs['coco/bbox_mAP'] == 0
    assert theirs['coco/bbox_mAP_50'] == pytest.approx(1 / 150, abs=1e-3)


def test_only_images_that_were_shown_count(truth: Truth, tmp_path: Path, metric: Metric, logged: list[str]) -> None:
    found = [one for one in coco_detections(truth, 3, per_image=30) if one['image_id'] <= 6]
    kept = [one for one in truth['annotations'] if one['image_id'] <= 6]
    part = dict(truth, images=truth['images'][:6], annotations=kept)
    metrics = run(metric(), samples_of(part, found))
    assert logged == [f'evaluated on 6 of the 12 images of {tmp_path / "gt.json"}']
    assert list(metrics.values()) == pytest.approx(list(evaluate(part, found, 'bbox').overall.values()), abs=1e-6)
    assert metrics['coco/bbox_mAP'] > 1.3 * evaluate(truth, found, 'bbox').overall['mAP']


def test_some_of_the_classes(truth: Truth, metric: Metric, logged: list[str]) -> None:
    """A data set of two of the file's four classes; labels count those, the objects of the others are not missed."""
    found = [one for one in coco_detections(truth, 3, per_image=30) if one['category_id'] in (10, 30)]
    fewer = dict(truth, categories=[truth['categories'][0], truth['categories'][2]])
    metrics = run(metric(['class 1', 'class 3'], classwise=True), samples_of(fewer, found))
    expected = evaluate(truth, found, 'bbox').by_class
    assert f'class 3  {expected["class 3"]["mAP"]:.3f}  {expected["class 3"]["mAP_50"]:.3f}' in logged[-1]
    by_class = [metrics[f'coco/bbox_AP_class {k}'] for k in (1, 3)]
    assert by_class == pytest.approx([expected[f'class {k}']['mAP'] for k in (1, 3)], abs=1e-6)
    assert metrics['coco/bbox_mAP'] == pytest.approx(sum(by_class) / 2, abs=1e-12)


def masked(truth: Truth) -> list[DetDataSample]:
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


WRONG_FILES = (
    '{', '{"images": []}', '{"images": [], "categories": []}', '[' * 100_000,
    '{"images": [], "categories": ["class 1"], "annotations": []}',
)  # fmt: skip


def test_masks_may_be_encoded_and_have_scores_of_their_own(truth: Truth, metric: Metric) -> None:
    samples = masked(truth)
    plain = run(metric(metric=['bbox', 'segm']), samples)
    assert len(plain) == 24
    assert plain['coco/bbox_mAP'] > plain['coco/segm_mAP'] > 0.3
    assert plain['coco/segm_mAP_50'] == pytest.approx(plain['coco/bbox_mAP_50'], abs=1e-12)  # 2/3 of each is left
    samples = masked(truth)
    for one in samples:
        masks = one.pred_instances.masks.numpy().astype(np.uint8)
        one.pred_instances.masks = [rle.encode(np.asfortranarray(mask)) for mask in masks]
    assert run(metric(metric=['bbox', 'segm']), samples) == plain
    # Whole masks first: of the halves, none precedes a right one at high IoU.
    for one in samples:
        count = len(one.pred_instances)
        one.pred_instances.mask_scores = torch.tensor([0.9, 0.1]).repeat(count)[:count]
    assert run(metric(metric='segm'), samples)['coco/segm_mAP_75'] > plain['coco/segm_mAP_75']


def test_wrong_options_classes_and_files_are_named(truth: Truth, tmp_path: Path, metric: Metric) -> None:
    file = str(tmp_path / 'gt.json')
    wrong = ('metric', 'proposal', 'proposal'), ('metric', (), 'bbox'), ('ann_file', 'no.json', 'no')
    for option, value, named in wrong:
        with pytest.raises(UserError, match=named):
            COCOMetric(**{'ann_file': file, option: value})
    classes = (['class 1', 'cat'], 'cat'), (['class 2', 'class 1'], 'class 2, class 1'), (None, 'metainfo.classes')
    for names, named in classes:
        with pytest.raises(UserError, match=named):
            metric(names)
    twice = dict(truth, categories=[{'id': 0, 'name': 'class 1'}, *truth['categories']])
    again = dict(truth, images=[*truth['images'], truth['images'][0]])
    both = ((json.dumps(twice), r'class 1.*ids 0, 10'), (json.dumps(again), r'images\[12\]'))
    for text, named in (*both, *((text, file) for text in WRONG_FILES)):
        Path(file).write_text(text)
        with pytest.raises(UserError, match=named):
            metric()


BAD_ENTRIES: dict[str, tuple[str, dict[str, Any], str]] = {
    # metric, what is changed in annotations[3], what the error names beside the entry
    'box of texts': ('bbox', {'bbox': ['1', '2', '3', '4']}, "'1'"),
    'infinite box': ('bbox', {'bbox': [1, 2, float('inf'), 4]}, 'inf'),
    'box that is not a number': ('bbox', {'bbox': [float('nan'), 2, 3, 4]}, 'nan'),
    'crowd of two': ('bbox', {'iscrowd': 2}, 'iscrowd'),
    'area as text': ('bbox', {'area': '900'}, '900'),
    'no segmentation': ('segm', {'segmentation': []}, 'segmentation'),
    'two points': ('segm', {'segmentation': [[1, 1, 9, 9]]}, 'polygon'),
    'polygon of texts': ('segm', {'segmentation': [['1', '1', '9', '1', '9', '9']]}, "'9'"),
    'run lengths of another size': ('segm', {'segmentation': {'size': [9, 9], 'counts': [81]}}, '[9, 9]'),
    'huge run lengths': ('segm', {'segmentation': {'size': [2**40, 2**40], 'counts': [2**80]}}, str(2**40)),
    'run lengths that are too short': ('segm', {'segmentation': {'size': [400, 400], 'counts': 'PP1'}}, '160,000'),
}


@pytest.mark.parametrize('case', BAD_ENTRIES)
def test_bad_entries_are_refused(truth: Truth, tmp_path: Path, metric: Metric, case: str) -> None:
    kind, change, named = BAD_ENTRIES[case]
    truth['annotations'][3] |= change
    (tmp_path / 'gt.json').write_text(json.dumps(truth))
    with pytest.raises(UserError) as caught:
        metric(metric=kind)
    assert f'{tmp_path / "gt.json"}: annotations[3] ' in str(caught.value)
    assert named in str(caught.value)
    # Entries of classes that are not evaluated do no harm.
    others = [c['name'] for c in truth['categories'] if c['id'] != truth['annotations'][3]['category_id']]
    metric(others, metric=kind)


def test_predictions_that_do_not_fit(truth: Truth, metric: Metric) -> None:
    one = samples_of(truth, [])[0]
    for kind, samples, named in (
        ('bbox', [one, one], 'image 1'),
        ('bbox', [sample(99, [], [], [])], 'image 99'),
        ('bbox', [sample(1, [[0, 0, 9, 9]], [0.5], [4])], 'label 4'),
        ('bbox', [], 'no image'),
        ('segm', [one], 'masks'),
    ):
        with pytest.raises(UserError, match=named):
            run(metric(metric=kind), samples)
    found = {'bboxes': np.zeros((2, 4)), 'scores': np.zeros(2), 'labels': np.zeros(2, int), 'masks': [{}]}
    with pytest.raises(UserError, match='1 masks for 2'):
        metric(metric='segm').metrics[0].process(None, [{'img_id': 1, 'pred_instances': found}])


@pytest.mark.realdata
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_real_images(kind: str, tmp_path: Path, build: Build) -> None:
    """Predictions from COCO's own objects, moved and mixed up: mmdet's metric says the same."""
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
    ours = run(build({'type': 'mmres2net.COCOMetric', 'classwise': True, **common}, names), samples)
    assert len(ours) == 12 + 80
    assert 0.1 < ours[f'coco/{kind}_mAP'] < 0.9
    theirs = run(build({'type': 'CocoMetric', **common}, names), samples)
    assert {name: round(ours[name], 3) for name in theirs} == theirs
