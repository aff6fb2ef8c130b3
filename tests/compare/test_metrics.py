"""Replicates of segmentation, saliency, VOC and calibration equal the project's metrics on the drawn images."""

from typing import Any

import numpy as np
import pytest
import torch

from mmres2net.compare.metrics import calibration, measure
from mmres2net.compare.statistics import draw_images
from mmres2net.evaluation import IoUMetric, VOCMetric
from mmres2net.evaluation.matches import match
from mmres2net.evaluation.per_image import collected
from mmres2net.saliency import SaliencyMetric
from tests.compare.samples import record
from tests.evaluation.samples import instances, run

DRAWS = draw_images(8, 4, np.random.default_rng(0))


def repeated(samples: list[Any], r: int) -> list[Any]:
    return [one for one, count in zip(samples, DRAWS.counts[:, r].astype(int), strict=True) for _ in range(count)]


def evaluated(metric: Any, samples: list[Any], classes: tuple[str, ...]) -> dict[str, float]:
    metric.dataset_meta = {'classes': classes}
    return run(metric, samples)


def test_segmentation() -> None:
    rng, classes, samples, records = np.random.default_rng(1), ('a', 'b', 'c', 'd'), [], []
    for i in range(8):
        truth = rng.integers(3 if i < 6 else 4, size=(6, 5))
        found = np.where(rng.random((6, 5)) < 0.6, truth, rng.integers(4, size=(6, 5)))
        samples.append({'gt_sem_seg': {'data': torch.tensor(truth)}, 'pred_sem_seg': {'data': torch.tensor(found)}})
        pairs, pixels = np.unique(truth * 4 + found, return_counts=True)
        records.append(record(i, 'segmentation', pairs=pairs, pixels=pixels))
    done = measure(collected(records, classes), DRAWS)
    for r in range(5):
        expected = evaluated(IoUMetric(), repeated(samples, r), classes)
        for name in ('mIoU', 'aAcc', 'mAcc'):
            assert done.metrics['', name][r] == pytest.approx(expected[name], abs=1e-9)
        iou = [expected[f'IoU_{name}'] for name in classes]
        assert done.by_class[''][1][r] == pytest.approx(iou, abs=1e-9, nan_ok=True)


def test_saliency_by_data_set() -> None:
    rng, samples = np.random.default_rng(2), []
    for i in range(8):
        truth = (rng.random((1, 9, 7)) < 0.4).astype(np.int64)
        grey = np.clip(0.6 * truth + 0.5 * rng.random((1, 9, 7)), 0, 1)
        parts = {'seg_logits': {'data': torch.tensor(grey)}, 'gt_sem_seg': {'data': torch.tensor(truth)}}
        samples.append({**parts, 'dataset_name': 'X' if i < 5 else 'Y', 'img_path': f'{i}.jpg'})
    metric, records = SaliencyMetric(), [record(i, 'segmentation', pairs=[0], pixels=[1]) for i in range(8)]
    evaluated(metric, samples, ('background', 'salient'))
    done = measure({**collected(records, ('background', 'salient')), **metric.kept}, DRAWS)
    for r in range(5):
        drawn = repeated(samples, r)
        expected = evaluated(SaliencyMetric(), drawn, ('background', 'salient'))
        assert len({one['dataset_name'] for one in drawn}) == 2
        found = {f'{group}/{name}': values[r] for (group, name), values in done.metrics.items()}
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('mode', ['11points', 'area'])
def test_voc(mode: str) -> None:
    rng, classes, samples = np.random.default_rng(3), ('a', 'b'), []
    for i in range(8):
        corners = rng.uniform(0, 60, (4, 2))
        boxes = np.hstack([corners, corners + rng.uniform(20, 50, (4, 2))])
        labels = rng.integers(2, size=4).tolist()
        moved, scores = np.vstack([boxes, boxes]) + rng.normal(0, 6, (8, 4)), rng.random(8) + 1e-9 * i
        parts = {'gt': instances(boxes[1:], labels[1:]), 'ignored': instances(boxes[:1], labels[:1])}
        parts['pred'] = instances(moved, labels * 2, scores)
        samples.append({f'{name}_instances': part for name, part in parts.items()})
    metric, images = VOCMetric(eval_mode=mode), [{'id': i, 'file_name': f'{i}.jpg'} for i in range(8)]
    evaluated(metric, samples, classes)
    categories = [{'id': k, 'name': name} for k, name in enumerate(classes)]
    empty = match({'images': images, 'categories': categories, 'annotations': []}, [], 'bbox')
    arrays = collected([record(i, 'detection') for i in range(8)], classes, {'bbox': empty})
    done = measure({**arrays, **{key: np.asarray(value) for key, value in metric.kept.items()}}, DRAWS)
    for r in range(5):
        expected = evaluated(VOCMetric(eval_mode=mode), repeated(samples, r), classes)
        assert done.metrics['bbox', 'AP50'][r] == pytest.approx(100 * expected['pascal_voc/mAP'], abs=1e-9)
    assert len(done.metrics) == 1


def test_calibration_by_hand() -> None:
    mean, share, count, error = calibration(np.array([0.05, 0.15, 0.15, 1.0]), np.array([0, 1, 0, 1]))
    assert count.tolist() == [1, 2, *[0] * 7, 1]
    assert (mean[1], share[1], share[9]) == (pytest.approx(0.15), 0.5, 1)
    assert error == pytest.approx((0.05 + 2 * 0.35) / 4)
