"""VOC's average precision: by hand, and against an independent one in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from mmres2net.evaluation.voc import ImageBoxes, average_precision, evaluate_class, overlaps
from tests.reference.voc_ap import voc_ap

MODES = {'11points': True, 'area': False}


def image(found: list[tuple], objects: list[tuple], difficult: tuple[int, ...] = ()) -> ImageBoxes:
    """An image with detections (x1, y1, x2, y2, score) and objects (x1, y1, x2, y2)."""
    rows = np.array(found, float).reshape(-1, 5)
    marks = np.array([i in difficult for i in range(len(objects))], bool)
    return ImageBoxes(rows[:, :4], rows[:, 4], np.array(objects, float).reshape(-1, 4), marks)


# Right, wrong, right, wrong, right of four objects.
# Recall 1/4, 1/4, 2/4, 2/4, 3/4; precision 1, 1/2, 2/3, 2/4, 3/5.
# 11 points: the best precision at recall 0, 0.1, 0.2 or more is 1; at 0.3, 0.4, 0.5 it is 2/3; at 0.6, 0.7 it is 3/5;
#   at 0.8, 0.9, 1 nothing: (3 * 1 + 3 * 2/3 + 2 * 3/5) / 11 = 6.2 / 11.
# Area: a quarter each at 1, at max(2/3, 3/5) and at 3/5: (1 + 2/3 + 3/5) / 4 = 34/60.
@pytest.mark.parametrize(('mode', 'ap'), [('11points', 6.2 / 11), ('area', 34 / 60)])
def test_by_hand(mode: str, ap: float) -> None:
    assert average_precision(np.array([1, 0, 1, 0, 1], bool), 4, mode) == pytest.approx(ap, abs=1e-15)


def test_a_recall_of_three_tenths_is_three_tenths() -> None:
    # Ten objects. Three detections are right, then ten are wrong: precision 1 counts at 0, 0.1, 0.2 and 0.3: 4/11.
    # Compared as floats, 3/10 < 3 * 0.1, and it would be 3/11. The same at six and seven tenths.
    for tenths in range(11):
        right = np.array([True] * tenths + [False] * 10)
        assert average_precision(right, 10, '11points') == pytest.approx((tenths + 1) / 11 if tenths else 0, abs=1e-15)


@pytest.mark.parametrize('mode', MODES)
def test_ends(mode: str) -> None:
    assert average_precision(np.ones(3, bool), 3, mode) == 1
    assert average_precision(np.zeros(3, bool), 3, mode) == 0
    assert average_precision(np.zeros(0, bool), 3, mode) == 0
    assert np.isnan(average_precision(np.zeros(3, bool), 0, mode))


def test_corners_belong_to_the_box() -> None:
    # 10 x 10 pixels each, columns 0 to 9 and 5 to 14, five in common: 50 / 150. Without the 1: 36 / 126.
    assert overlaps(np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9]])) == pytest.approx(1 / 3)
    # Two boxes that share one pixel of their corners; two that touch without sharing one.
    shared = overlaps(np.array([[0, 0, 9, 9]]), np.array([[9, 9, 18, 18], [10, 0, 19, 9]]))
    assert shared.tolist() == [[pytest.approx(1 / 199), 0]]


def test_an_overlap_of_exactly_one_half_is_enough() -> None:
    # 10 x 10 pixels, of which the detection has five rows: 50 / 100. Without the 1: 36 / 81, too little.
    found = evaluate_class([image([(0, 0, 9, 4, 0.5)], [(0, 0, 9, 9)])])
    assert found.ap == 1
    # Four rows are too few.
    assert evaluate_class([image([(0, 0, 9, 3, 0.5)], [(0, 0, 9, 9)])]).ap == 0


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('seed', range(20))
def test_against_fractions(mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = rng.integers(0, 30, (count, 2))
        return np.hstack([corner, corner + rng.integers(4, 20, (count, 2))])

    images = []
    for _ in range(6):
        objects = boxes(rng.integers(0, 6))
        near = objects[rng.integers(0, len(objects), 8)] + rng.integers(-3, 4, (8, 4)) if len(objects) else boxes(2)
        found = np.vstack([near, boxes(3)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        # Two decimals: some scores are equal, within an image and between images.
        images.append(ImageBoxes(found, rng.random(len(found)).round(2), objects, rng.random(len(objects)) < 0.25))
    detections = [(i, s, b) for i, one in enumerate(images) for b, s in zip(one.boxes, one.scores, strict=True)]
    objects = [(i, b, d) for i, one in enumerate(images) for b, d in zip(one.objects, one.difficult, strict=True)]
    for threshold in (Fraction(1, 2), Fraction(3, 4)):
        expected = voc_ap(detections, objects, eleven_points=MODES[mode], threshold=threshold)
        actual = evaluate_class(images, iou_thr=float(threshold), mode=mode).ap
        assert expected is not None
        assert actual == pytest.approx(float(expected), abs=1e-13)
