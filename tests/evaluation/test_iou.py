"""IoUMetric in an evaluator, on samples as mmseg hands them over, beside loops and mmseg's own metric."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmres2net.errors import UserError
from mmres2net.evaluation import IoUMetric
from tests.evaluation.conftest import Build
from tests.evaluation.samples import run

HOST = 'mmseg'
CLASSES = ('sky', 'road', 'car', 'bird')


def sample(predicted: Any, annotated: Any) -> SegDataSample:
    one = SegDataSample(metainfo={'img_path': 'street.png'})
    one.pred_sem_seg = PixelData(data=torch.as_tensor(predicted)[None])
    one.gt_sem_seg = PixelData(data=torch.as_tensor(annotated, dtype=torch.uint8)[None])
    return one


def test_by_hand(build: Build, logged: list[str]) -> None:
    # Sky: 3 of 3 annotated pixels, 5 predicted, of which one is ignored: 3/4. Road: 1 right of 2 annotated and 1
    # predicted: 1/2. Car: predicted once, nowhere annotated: 0, and no accuracy. Bird: nowhere.
    samples = [sample([[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [255, 1, 1]]), sample([[2, 0, 0]], [[0, 255, 255]])]
    evaluator = build({'type': 'mmres2net.IoUMetric'}, CLASSES)
    assert type(evaluator.metrics[0]) is IoUMetric
    metrics = run(evaluator, samples)
    # Sky over both images: 3 right, 4 predicted, 4 annotated: 3/5, accuracy 3/4. Right pixels: 4 of 6.
    assert metrics == pytest.approx(
        {
            'mIoU': 100 * (3 / 5 + 1 / 2 + 0) / 3, 'aAcc': 100 * 4 / 6, 'mAcc': 100 * (3 / 4 + 1 / 2) / 2,
            'IoU_sky': 60, 'IoU_road': 50, 'IoU_car': 0, 'IoU_bird': np.nan,
            'Acc_sky': 75, 'Acc_road': 50, 'Acc_car': np.nan, 'Acc_bird': np.nan,
        }, abs=1e-12, nan_ok=True,
    )  # fmt: skip
    assert next(iter(metrics)) == 'mIoU', "save_best='auto' follows the first"
    assert CheckpointHook(save_best='mIoU').rules == ['greater']
    assert 'bird        -         -' in '\n'.join(logged)


def random_samples(seed: int, count: int = 4) -> list[SegDataSample]:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        annotated = rng.choice([0, 1, 2, 3, 255], (20, 30))
        wrong = rng.random((20, 30)) < 0.4
        samples.append(sample(np.where(wrong | (annotated == 255), rng.integers(0, 4, (20, 30)), annotated), annotated))
    return samples


def confusion(samples: list[SegDataSample]) -> list[list[int]]:
    """Rows are annotated, columns predicted; pixel by pixel."""
    table = [[0] * len(CLASSES) for _ in CLASSES]
    for one in samples:
        pairs = zip(one.gt_sem_seg.data.flatten().tolist(), one.pred_sem_seg.data.flatten().tolist(), strict=True)
        for annotated, predicted in pairs:
            if annotated != 255:
                table[annotated][predicted] += 1
    return table


@pytest.mark.parametrize('seed', range(3))
def test_against_a_confusion_matrix(seed: int, build: Build) -> None:
    samples = random_samples(seed)
    table = confusion(samples)
    metrics = run(build({'type': 'mmres2net.IoUMetric'}, CLASSES), samples)
    for k, name in enumerate(CLASSES):
        annotated, predicted = sum(table[k]), sum(row[k] for row in table)
        assert metrics[f'IoU_{name}'] == pytest.approx(100 * table[k][k] / (annotated + predicted - table[k][k]))
        assert metrics[f'Acc_{name}'] == pytest.approx(100 * table[k][k] / annotated)
    theirs = run(build({'type': 'IoUMetric', 'iou_metrics': ['mIoU']}, CLASSES), samples)
    assert {name: round(metrics[name], 2) for name in theirs} == pytest.approx(theirs, abs=0.0101)
    assert next(iter(theirs)) == 'aAcc'
    assert len(theirs) == 3


def test_what_cannot_be_evaluated(build: Build) -> None:
    bare = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 2, 2)))
    for classes, samples, named in (
        (CLASSES, [bare], 'LoadAnnotations'),
        (CLASSES, [], 'no image'),
        (None, random_samples(0), r'metainfo\.classes'),
        (CLASSES, [sample([[0, 0]], [[0, 4]])], 'street.png is annotated .* label 4'),
        (CLASSES, [sample([[0, 4]], [[0, 1]])], 'street.png is predicted .* label 4'),
        (CLASSES, [sample([[0, -1]], [[0, 1]])], 'street.png is predicted .* label -1'),
        (CLASSES, [sample([[0, 0, 0]], [[0, 1]])], r'street.png.*\(1, 3\).*\(1, 2\)'),
    ):
        with pytest.raises(UserError, match=named):
            run(build({'type': 'mmres2net.IoUMetric'}, classes), samples)


def test_ignored_labels(build: Build) -> None:
    metrics = run(build({'type': 'mmres2net.IoUMetric'}, CLASSES), [sample([[0]], [[255]])])
    assert all(np.isnan(value) for value in metrics.values())
    evaluator = build({'type': 'mmres2net.IoUMetric', 'ignore_index': 9}, CLASSES)
    assert run(evaluator, [sample([[0, 1]], [[0, 9]])])['mIoU'] == 100
