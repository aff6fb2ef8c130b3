"""A comparison finds what differs, and lets through what rounding decides."""

import numpy as np
import pytest

from mmres2net.export.compare import compare_classes, compare_detections, compare_maps
from mmres2net.export.verify import fault_of
from mmres2net.predict.images import paste_masks

SIZE = (40, 50)


def detections(**changes) -> dict:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [5, 5, 30, 38]], np.float32)
    grid = np.ones((3, 4, 4), np.float32)
    found = dict(boxes=boxes, scores=np.array([0.9, 0.8, 0.5]), labels=np.array([0, 1, 0]), masks=grid)
    return {name: np.array(changes.get(name, value)) for name, value in found.items()}


def pixels(found: dict) -> dict:
    masks = paste_masks(found['masks'], found['boxes'], SIZE, 0.5)
    return {**found, 'masks': masks}


def rows_of(got: dict, least_score: float = 0.1, most: int = 100) -> dict:
    rows = compare_detections(pixels(detections()), got, SIZE, 1e-3, least_score=least_score, most=most)
    return {row.part: row for row in rows}


def test_equal_detections_in_another_order_are_equal() -> None:
    shuffled = {name: value[[2, 0, 1]] for name, value in detections().items()}
    rows = rows_of(shuffled)
    assert list(rows) == ['detections', 'boxes', 'scores', '1 - mask IoU']
    assert all(row.good and row.difference == 0 for row in rows.values())


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        (dict(labels=[0, 2, 0]), 'detections'),
        (dict(boxes=[[0, 0, 10, 10], [20, 20, 40, 30], [5, 5, 30, 38.2]]), 'boxes'),
        (dict(boxes=[[0, 0, 10, 10], [20, 20, 40, 30], [9, 5, 30, 38]]), 'detections'),
        (dict(scores=[0.9, 0.81, 0.5]), 'scores'),
        (dict(masks=np.stack([np.ones((4, 4)), np.eye(4), np.ones((4, 4))])), '1 - mask IoU'),
        (dict(scores=[0.9, np.nan, 0.5]), 'scores'),
    ],
)
def test_a_difference_is_found(changes: dict, part: str) -> None:
    assert [name for name, row in rows_of(detections(**changes)).items() if not row.good] == [part]


def test_a_lost_detection_counts_unless_rounding_decides() -> None:
    two = {name: value[:2] for name, value in detections().items()}
    assert rows_of(two)['detections'].difference == 1
    assert rows_of(two, most=3)['detections'].good, 'the last one of a full list'
    others = {name: value[1:] for name, value in detections().items()}
    assert rows_of(others)['detections'].difference == 1
    assert rows_of(others, least_score=0.8995)['detections'].good, 'at the threshold'


def test_maps_and_classes() -> None:
    one = np.array([[1.0, -4.0], [2.0, 0.5]])
    assert compare_maps('x', one, one + 0.004, 1e-3).difference == pytest.approx(1e-3)
    assert not compare_maps('x', one, one[:1], 1e-3).good
    assert not compare_maps('x', one, one * np.nan, 1e-3).good
    labels = np.array([[0, 0, 1, 1]])
    differ, iou = compare_classes(labels, np.array([[0, 0, 0, 1]]), 1e-3)
    assert differ.difference == 0.25
    assert iou.difference == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)


def test_nothing_compared_is_no_proof() -> None:
    nothing = {name: value[:0] for name, value in detections().items()}
    rows = list(compare_detections(pixels(nothing), nothing, SIZE, 1e-3, least_score=0.1, most=100))
    assert all(row.good for row in rows)
    assert 'no box was compared' in fault_of(rows, 'detection')
