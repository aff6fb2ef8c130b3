"""A comparison finds what differs, and lets through what rounding decides."""

import numpy as np
import pytest

from mmres2net.export.verify import compare_classes, compare_detections, compare_maps, fault_of

SIZE = (40, 50)


def detections(keep: list[int] = [0, 1, 2], **changes: object) -> dict:  # noqa: B006
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 2:9, 2:9] = masks[1, 21:29, 21:39] = masks[2, 6:37, 6:29] = True
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [5, 5, 30, 38]], np.float32)
    found = dict(boxes=boxes, scores=np.array([0.9, 0.8, 0.5]), labels=np.array([0, 1, 0]), masks=masks)
    return {name: np.array(changes.get(name, value))[keep] for name, value in found.items()}


def compared(got: dict, others: tuple = (), *, least: float = 0.1, most: int = 100, of: dict | None = None) -> dict:
    limits = dict(size=SIZE, tolerance=1e-3, score_threshold=least, max_detections=most)
    return {row.part: row for row in compare_detections(of or detections(), got, others, **limits)}


def test_equal_detections_in_another_order_are_equal() -> None:
    rows = compared(detections(keep=[2, 0, 1]))
    assert list(rows) == ['detections', 'boxes', 'scores', '1 - mask IoU']
    assert all(row.passed and row.difference == 0 for row in rows.values())


WRONG_MASK = detections()['masks']
WRONG_MASK[1, 21:29, 21:24] = False
DIFFERENCES = [
    dict(labels=[0, 2, 0]), dict(boxes=[[0, 0, 10, 10], [20, 20, 40, 30], [5, 5, 30, 38.2]]),
    dict(boxes=[[0, 0, 10, 10], [20, 20, 40, 30], [9, 5, 30, 38]]),
    dict(boxes=[[0, 0, 10, np.nan], [20, 20, 40, 30], [5, 5, 30, 38]]), dict(scores=[0.9, 0.81, 0.5]),
    dict(scores=[0.9, np.nan, 0.5]), dict(masks=WRONG_MASK),
]  # fmt: skip


@pytest.mark.parametrize('changes', DIFFERENCES)
def test_a_wrong_detection_is_a_lost_and_a_new_one(changes: dict) -> None:
    # That the model wavers about the wrong one does not excuse it, as long as it never gives it.
    for alternatives in ((), (detections(),), (detections(keep=[0]), detections())):
        assert not compared(detections(**changes), alternatives)['detections'].passed
    assert compared(detections(**changes))['detections'].difference == 2


def test_rounding_decides_between_candidates_at_the_threshold_and_at_the_end_of_a_full_list() -> None:
    other = detections(boxes=[[0, 0, 10, 10], [20, 20, 40, 30], [6, 5, 31, 38]])
    assert compared(other)['detections'].difference == 2
    assert compared(other, (detections(), other))['detections'].passed
    rows = compared(other, (other,))
    assert rows['boxes'].difference == 0, 'those by rounding do not count for the others'
    assert compared(detections(keep=[0, 1]))['detections'].difference == 1
    assert compared(detections(keep=[0, 1]), most=3)['detections'].difference == 1, 'this one had room for it'
    assert compared(detections(keep=[0, 1]), most=2)['detections'].passed
    assert compared(detections(keep=[1, 2]))['detections'].difference == 1
    assert compared(detections(keep=[1, 2]), most=2)['detections'].difference == 1, 'it is better than what was kept'
    assert compared(detections(keep=[0, 1]), least=0.4995)['detections'].passed


def test_maps() -> None:
    one = np.array([[1.0, -4.0], [2.0, 0.5]])
    assert compare_maps('x', one, one + 0.004, 1e-3).difference == pytest.approx(1e-3)
    for other in (one[:1], one * np.nan, one + np.inf):
        assert not compare_maps('x', one, other, 1e-3).passed


def test_classes_count_where_rounding_does_not_decide() -> None:
    scores = np.array([[[1.0, 1.0, 0.5]], [[0.0, 0.9999, 0.7]]])  # the second pixel is undecided
    expected = scores.argmax(0)
    assert compare_classes(scores, expected, np.array([[0, 1, 1]]), 1e-3).passed
    assert compare_classes(scores, expected, np.array([[0, 0, 0]]), 1e-3).difference == 0.5
    assert not compare_classes(scores, expected, expected.T, 1e-3).passed
    assert not compare_classes(scores[:1], np.zeros((1, 3), int), np.ones((1, 3), int), 1e-3).passed


def test_nothing_compared_is_not_verified() -> None:
    nothing = detections(keep=[])
    rows = list(compared(nothing, of=nothing).values())
    assert all(row.passed for row in rows)
    assert (bool(fault_of(rows, 'detection')), fault_of(rows, 'backbone')) == (True, '')
