"""Matches of detections with objects: the same as pycocotools', by verdict and by AP; and what follows from them."""

import copy
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmres2net.evaluation.matches import (
    AREAS,
    FALSE,
    IGNORED,
    TRUE,
    arrays_of,
    average_precision,
    confusion_matrix,
    f1_at_score,
    match,
    matches_of,
)  # fmt: skip
from tests.evaluation.samples import coco_detections, coco_truth
from tests.evaluation.test_coco_protocol import masks_of, of_boxes
from tests.support.realdata import data_root


def official(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> COCOeval:
    """pycocotools' own evaluation."""
    ours = COCO()
    ours.dataset = copy.deepcopy({'info': {}, **truth})
    ours.createIndex()
    run = COCOeval(ours, ours.loadRes(copy.deepcopy(found)), kind)
    run.evaluate()
    run.accumulate()
    return run


def check(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> None:
    """Compare each verdict, each object that does not count, and the AP of each class, size and threshold."""
    matches, run = match(truth, found, kind), official(truth, found, kind)
    ids = sorted(image['id'] for image in truth['images'])
    labels = {one['id']: k for k, one in enumerate(truth['categories'])}
    compared = 0
    for one in filter(None, run.evalImgs):
        area = [list(pair) for pair in AREAS.tolist()].index([float(v) for v in one['aRng']])
        place, label = ids.index(one['image_id']), labels[one['category_id']]
        mine = (matches.image == place) & (matches.label == label)
        theirs = np.where(one['dtIgnore'], IGNORED, np.where(one['dtMatches'] > 0, TRUE, FALSE)).T
        assert np.array_equal(matches.verdict[area, mine], theirs.reshape(-1, 10))
        assert matches.score[mine].tolist() == one['dtScores']
        here = (matches.object_image == place) & (matches.object_label == label)
        assert sorted(matches.ignored[area, here].tolist()) == sorted(bool(v) for v in one['gtIgnore'])
        compared += mine.sum()
    assert compared == 4 * len(matches.score)
    order = np.argsort([one['id'] for one in truth['categories']])
    for area in range(4):
        theirs = run.eval['precision'][:, :, :, area, -1].mean(1)
        ap = average_precision(matches, area)[:, order]
        assert ap == pytest.approx(np.where(theirs == -1, np.nan, theirs), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(('seed', 'classes', 'per_image'), [(0, 6, 20), (1, 12, 60), (2, 2, 150)])
def test_verdicts_and_ap_are_those_of_pycocotools(kind: str, seed: int, classes: int, per_image: int) -> None:
    truth = coco_truth(30 if kind == 'bbox' else 12, classes, seed, masks=kind == 'segm')
    found = coco_detections(truth, seed, per_image=per_image)
    check(truth, masks_of(found) if kind == 'segm' else found, kind)


@pytest.mark.realdata
def test_on_photographs() -> None:
    (file,) = data_root('coco_mini').glob('annotations/instances_val*.json')
    truth = COCO(str(file)).dataset
    found = coco_detections(truth, 3, per_image=40)
    check(truth, found, 'bbox')


def test_confusion_matrix_and_f1_by_hand() -> None:
    truth, found = of_boxes(
        [(1, 0, 0, 0, 40, 40), (1, 1, 100, 100, 140, 140), (1, 1, 200, 200, 240, 240), (2, 0, 0, 0, 50, 50)],
        [
            (1, 0, 0, 0, 40, 40, 0.9),  # right
            (1, 0, 100, 100, 140, 140, 0.8),  # an object of class 1, taken for class 0
            (1, 1, 300, 300, 340, 340, 0.7),  # background
            (2, 0, 0, 0, 50, 50, 0.2),  # right, but under the least score: missed
        ],
    )
    matches = match(truth, found, 'bbox')
    assert confusion_matrix(matches).tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    f1 = f1_at_score(matches)
    # Class 0 from 0.2 down: 2 right, 1 wrong of 2 objects; from 0.81 to 0.9: 1 right; above: none.
    assert f1[0, [0, 20, 50, 85, 95]] == pytest.approx([4 / 5, 4 / 5, 2 / 4, 2 / 3, 0])
    assert f1[1].max() == 0


def test_difficult_objects_are_neither_right_nor_wrong_and_arrays_come_back() -> None:
    truth, found = of_boxes([(1, 0, 0, 0, 40, 40), (1, 0, 100, 0, 140, 40)], [(1, 0, 0, 0, 40, 40, 0.9)] * 2)
    truth['annotations'][0]['ignore'] = True
    matches = match(truth, found, 'bbox')
    assert matches.verdict[0, :, 0].tolist() == [IGNORED, IGNORED]
    assert confusion_matrix(matches).tolist() == [[0, 1], [0, 0]]
    again = matches_of(arrays_of(matches, 'bbox'))
    assert np.array_equal(again.verdict, matches.verdict)
    nothing = match(truth, [], 'bbox')
    assert (average_precision(nothing).max(), len(nothing.score)) == (0, 0)
