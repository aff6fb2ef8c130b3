"""VOCMetric in an evaluator, on samples as mmdet hands them over, beside mmdet's own metric."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS
from mmengine.structures import InstanceData

from mmres2net.errors import UserError
from mmres2net.evaluation import VOCMetric
from tests.evaluation.conftest import Build
from tests.evaluation.samples import instances, run
from tests.support.realdata import data_root

HOST = 'mmdet'
CLASSES = ('cat', 'dog', 'cow')
OBJECT, FAR = (0, 0, 9, 9), (100, 100, 109, 109)


def sample(found: dict[str, Any], objects: dict[str, Any], difficult: dict[str, Any]) -> DetDataSample:
    parts = (InstanceData(**part) for part in (found, objects, difficult))
    return DetDataSample(**dict(zip(('pred_instances', 'gt_instances', 'ignored_instances'), parts, strict=True)))


NOTHING = instances([], [])
TWO_IMAGES = [
    sample(instances([OBJECT, FAR], [0, 1], [0.9, 0.8]), instances([OBJECT, OBJECT], [0, 1]), instances([FAR], [1])),
    sample(instances([FAR, FAR], [0, 2], [0.95, 0.5]), instances([OBJECT], [0]), NOTHING),
]


def test_metrics_of_each_class(build: Build, logged: list[str]) -> None:
    # Cats: wrong at 0.95, right at 0.9, of two objects: precision 1/2 up to recall 1/2. Dogs: one detection, of a
    # difficult object, so none that counts; one object is missed. Cows: one detection, no object.
    evaluator = build({'type': 'mmres2net.VOCMetric'}, CLASSES)
    assert type(evaluator.metrics[0]) is VOCMetric
    metrics = run(evaluator, TWO_IMAGES)
    cat = 6 * 0.5 / 11  # the recalls 0, 0.1, ..., 0.5
    assert list(metrics) == [f'pascal_voc/{name}' for name in ('mAP', 'AP50', 'AP50_cat', 'AP50_dog', 'AP50_cow')]
    assert list(metrics.values()) == pytest.approx([cat / 2, cat / 2, cat, 0, np.nan], abs=1e-12, nan_ok=True)
    assert CheckpointHook(save_best=next(iter(metrics))).rules == ['greater']
    assert 'cow          0           1       -      -' in '\n'.join(logged)


def test_area_and_another_overlap(build: Build) -> None:
    metrics = run(build({'type': 'mmres2net.VOCMetric', 'eval_mode': 'area', 'iou_thr': 0.57}, CLASSES), TWO_IMAGES)
    assert metrics['pascal_voc/AP57_cat'] == pytest.approx(0.25, abs=1e-12)
    assert metrics['pascal_voc/mAP'] == metrics['pascal_voc/AP57'] == pytest.approx(0.125, abs=1e-12)


@pytest.mark.parametrize(
    ('options', 'message'), [({'eval_mode': '11point'}, '11points, area'), ({'iou_thr': 50}, '50')]
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VOCMetric(**options)


def test_what_cannot_be_evaluated(build: Build) -> None:
    bare = DetDataSample(pred_instances=InstanceData(**instances([], [], [])))
    for classes, samples, named in (
        (CLASSES, [bare], 'LoadAnnotations'),
        (CLASSES, [], 'no image'),
        (CLASSES, [sample(instances([OBJECT], [3], [0.9]), NOTHING, NOTHING)], 'label 3'),
        (None, TWO_IMAGES, r'metainfo\.classes'),
    ):
        with pytest.raises(UserError, match=named):
            run(build({'type': 'mmres2net.VOCMetric'}, classes), samples)


@pytest.mark.realdata
def test_real_annotations(build: Build) -> None:
    """VOC's own objects as mmdet loads them, first as predictions of themselves, then moved."""
    root = data_root('voc07_mini') / 'VOCdevkit'
    dataset = DATASETS.build({
        'type': 'VOCDataset', 'data_root': str(root), 'ann_file': 'VOC2007/ImageSets/Main/test.txt', 'test_mode': True,
        'data_prefix': {'sub_data_root': 'VOC2007/'},
        'pipeline': [
            {'type': 'LoadAnnotations', 'with_bbox': True},
            {'type': 'PackDetInputs', 'meta_keys': ('img_id',)},
        ],
    })  # fmt: skip
    rng, classes = np.random.default_rng(0), dataset.metainfo['classes']
    exact, moved = [], []
    for i in range(len(dataset)):
        one = dataset[i]['data_samples']
        objects, ignored = one.gt_instances.bboxes.tensor, one.ignored_instances.bboxes.tensor
        boxes = torch.cat([objects, ignored])
        labels = torch.cat([one.gt_instances.labels, one.ignored_instances.labels])
        scores = torch.from_numpy(rng.random(len(boxes)))
        noise = torch.from_numpy(rng.normal(0, 0.2, boxes.shape)) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        for samples, found in ((exact, boxes), (moved, (boxes + noise).float())):
            samples.append(one.clone())
            samples[-1].pred_instances = InstanceData(bboxes=found, labels=labels, scores=scores)
    metrics = run(build({'type': 'mmres2net.VOCMetric'}, classes), exact)
    assert len(metrics) == 2 + 20
    assert all(value == 1 for value in metrics.values() if not np.isnan(value))
    ours = run(build({'type': 'mmres2net.VOCMetric', 'eval_mode': 'area'}, classes), moved)
    theirs = run(build({'type': 'VOCMetric', 'eval_mode': 'area'}, classes), moved)
    assert 0.3 < ours['pascal_voc/mAP'] < 0.95
    assert ours['pascal_voc/mAP'] == pytest.approx(theirs['pascal_voc/mAP'], abs=1e-5)
