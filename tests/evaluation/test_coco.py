"""COCOMetric in an evaluator, on samples as mmdet hands them over, beside mmdet's own metric."""

import json
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
from mmres2net.evaluation.coco_protocol import PACKAGES, evaluate
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


def test_names_and_figures(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    found = coco_detections(truth, 3, per_image=30)
    evaluator = build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth))
    assert type(evaluator.metrics[0]) is COCOMetric
    figures = run(evaluator, samples_of(truth, found))
    assert list(figures) == [
        *(f'coco/bbox_{name}' for name in MMDET_NAMES),
        *(f'coco/bbox_AR@{limit}' for limit in (1, 10, 100)),
        *(f'coco/bbox_AR_{size}@100' for size in 'sml'),
    ]
    # Boxes went through float32 on the way.
    assert list(figures.values()) == pytest.approx(list(evaluate(truth, found, 'bbox').overall.values()), abs=1e-6)


def test_mmdet_gives_the_same_of_what_it_gives(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    samples = samples_of(truth, coco_detections(truth, 3, per_image=30))
    ours, theirs = (
        run(build({'type': kind, 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)), samples)
        for kind in ('mmres2net.COCOMetric', 'CocoMetric')
    )
    assert {name: round(ours[name], 3) for name in theirs} == theirs
    assert list(theirs) == [f'coco/bbox_{name}' for name in MMDET_NAMES]


def test_all_figures_keep_to_100_detections_where_mmdet_takes_more(tmp_path: Path, build: Build) -> None:
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
    truth: dict[str, Any], tmp_path: Path, build: Build, said: list[str]
) -> None:
    found = coco_detections(truth, 3, per_image=30)
    some = [one for one in samples_of(truth, found) if one.img_id <= 6]
    part = {
        'images': truth['images'][:6],
        'categories': truth['categories'],
        'annotations': [one for one in truth['annotations'] if one['image_id'] <= 6],
    }
    figures = run(build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)), some)
    assert said == [f'evaluated on 6 of the 12 images of {tmp_path / "gt.json"}']
    expected = evaluate(part, [one for one in found if one['image_id'] <= 6], 'bbox').overall
    assert list(figures.values()) == pytest.approx(list(expected.values()), abs=1e-6)
    assert (
        figures['coco/bbox_mAP']
        > 1.3 * evaluate(truth, [d for d in found if d['image_id'] <= 6], 'bbox').overall['mAP']
    )


def test_some_of_the_classes(truth: dict[str, Any], tmp_path: Path, build: Build, said: list[str]) -> None:
    """A data set of two of the file's four classes; labels count those, the objects of the others are not missed."""
    found = [one for one in coco_detections(truth, 3, per_image=30) if one['category_id'] in (10, 30)]
    fewer = dict(truth, categories=[truth['categories'][0], truth['categories'][2]])
    cfg = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json'), 'classwise': True}
    figures = run(build(cfg, ['class 1', 'class 3']), samples_of(fewer, found))
    expected = evaluate(truth, found, 'bbox').by_class
    assert f'class 3  {expected["class 3"]["mAP"]:.3f}  {expected["class 3"]["mAP_50"]:.3f}' in said[-1]
    assert figures['coco/bbox_AP_class 1'] == pytest.approx(expected['class 1']['mAP'], abs=1e-6)
    assert figures['coco/bbox_AP_class 3'] == pytest.approx(expected['class 3']['mAP'], abs=1e-6)
    assert figures['coco/bbox_mAP'] == pytest.approx(
        (figures['coco/bbox_AP_class 1'] + figures['coco/bbox_AP_class 3']) / 2, abs=1e-12
    )


def test_save_best_follows_the_ap(truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
    figures = run(
        build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, classes(truth)),
        samples_of(truth, []),
    )
    first = next(iter(figures))
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
    figures = run(build(cfg, classes(truth)), masked(truth))
    assert len(figures) == 24
    assert figures['coco/bbox_mAP'] > figures['coco/segm_mAP'] > 0.3
    assert figures['coco/segm_mAP_50'] == pytest.approx(figures['coco/bbox_mAP_50'], abs=1e-12)  # 2/3 of each is left
    # What was written is what was evaluated, and pycocotools reads it.
    for kind in ('bbox', 'segm'):
        written = json.loads((tmp_path / 'new' / f'out.{kind}.json').read_text())
        assert len(COCO(tmp_path / 'gt.json').loadRes(str(tmp_path / 'new' / f'out.{kind}.json')).anns) == len(written)
        assert evaluate(truth, written, kind).overall['mAP'] == pytest.approx(figures[f'coco/{kind}_mAP'], abs=1e-12)


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


class TestMistakes:
    """Each is one error that says what to do."""

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'metric': 'proposal'}, "metric='proposal' is not known: choose of bbox, segm"),
            ({'metric': ()}, 'is not known: choose of bbox, segm'),
            ({'evaluator': 'slow'}, 'choose one of faster, pycocotools'),
            ({'format_only': True}, 'outfile_prefix has to say where'),
            ({'ann_file': 'nowhere.json'}, "ann_file='nowhere.json' is not there"),
        ],
    )
    def test_options(self, truth: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            COCOMetric(**{'ann_file': str(tmp_path / 'gt.json'), **options})

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('{', 'not JSON'),
            ('[]', 'not a COCO'),
            ('{"images": []}', 'not a COCO'),
            ('{"images": [], "categories": []}', 'has no annotations: set format_only=True'),
        ],
    )
    def test_file(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / 'gt.json').write_text(text)
        with pytest.raises(UserError, match=message):
            COCOMetric(str(tmp_path / 'gt.json'))

    @pytest.mark.parametrize(
        ('names', 'message'),
        [
            (['class 1', 'cat'], "no category 'cat'; it has class 1, class 2"),
            (['class 2', 'class 1'], 'another order'),
            (None, 'names no classes'),
        ],
    )
    def test_classes(self, truth: dict[str, Any], tmp_path: Path, build: Build, names: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            build({'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}, names)

    def test_images(self, truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
        make = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json')}
        one = samples_of(truth, [])[0]
        with pytest.raises(UserError, match='image 1 was evaluated twice'):
            run(build(make, classes(truth)), [one, one])
        with pytest.raises(UserError, match='has no image 99'):
            run(build(make, classes(truth)), [sample(99, [], [], [])])
        with pytest.raises(UserError, match='the model predicts label 4, but the data set has 4 classes, 0 to 3'):
            run(build(make, classes(truth)), [sample(1, [[0, 0, 9, 9]], [0.5], [4])])
        with pytest.raises(UserError, match='no image was evaluated'):
            run(build(make, classes(truth)), [])

    def test_masks(self, truth: dict[str, Any], tmp_path: Path, build: Build) -> None:
        make = {'type': 'mmres2net.COCOMetric', 'ann_file': str(tmp_path / 'gt.json'), 'metric': 'segm'}
        with pytest.raises(UserError, match='the model predicts no masks'):
            run(build(make, classes(truth)), samples_of(truth, []))
        metric = build(make, classes(truth)).metrics[0]
        found = {'bboxes': np.zeros((2, 4)), 'scores': np.zeros(2), 'labels': np.zeros(2, int), 'masks': [{}]}
        with pytest.raises(UserError, match='1 masks for 2 labels'):
            metric.process(None, [{'img_id': 1, 'pred_instances': found}])


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
