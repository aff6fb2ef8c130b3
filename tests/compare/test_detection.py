"""A replicate is the evaluation of the drawn images, in all rows; each kind of error by hand."""

from typing import Any

import numpy as np
import pytest

from mmres2net.compare.detection import coco_metrics, curves, error_costs
from mmres2net.compare.statistics import Array, Draws, class_mean, draw_images
from mmres2net.evaluation.matches import FALSE, TRUE, Matches, match, precision_at_recall
from tests.evaluation.samples import coco_detections, coco_truth
from tests.evaluation.test_coco_protocol import masks_of, of_boxes, official


def drawn(truth: dict[str, Any], found: list[dict[str, Any]], counts: Array) -> tuple[dict[str, Any], list[dict]]:
    """The data set in which each image is there as often as ``counts`` says, one copy after another."""
    copies: dict[str, Any] = {'images': [], 'categories': truth['categories'], 'annotations': []}
    more: list[dict[str, Any]] = []
    for image, count in zip(truth['images'], counts.astype(int), strict=True):
        for number in range(count):
            new = image['id'] * 100 + number
            copies['images'].append({**image, 'id': new})
            for source, target in ((truth['annotations'], copies['annotations']), (found, more)):
                target += [{**one, 'image_id': new} for one in source if one['image_id'] == image['id']]
    copies['annotations'] = [{**one, 'id': i} for i, one in enumerate(copies['annotations'], 1)]
    return copies, more


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(('seed', 'images', 'classes', 'per_image'), [(0, 25, 5, 20), (1, 12, 3, 130), (2, 6, 9, 5)])
def test_replicates_equal_pycocotools_on_drawn_images(kind, seed, images, classes, per_image) -> None:
    truth = coco_truth(images, classes, seed, masks=kind == 'segm')
    # Copies of an image stand one after another only where no two scores of an image are equal.
    found = coco_detections(truth, seed, per_image=per_image)
    found = [{**one, 'score': one['score'] + 1e-6 * i} for i, one in enumerate(found)]
    found = masks_of(found) if kind == 'segm' else found
    draws = draw_images(images, 3, np.random.default_rng(seed))
    metrics, by_class = coco_metrics(match(truth, found, kind), draws)
    order = np.argsort([one['id'] for one in truth['categories']])
    for r, counts in enumerate(draws.counts.T):
        run = official(*drawn(truth, found, counts), kind)
        assert [values[r] for values in metrics.values()] == pytest.approx(
            np.where(run.stats == -1, np.nan, 100 * run.stats), abs=1e-10, nan_ok=True
        )
        ap = run.eval['precision'][..., 0, -1].mean((0, 1))
        assert by_class[r, order] == pytest.approx(np.where(ap == -1, np.nan, 100 * ap), abs=1e-10, nan_ok=True)


def f1_at_scores(matches: Matches) -> Array:
    """The F1 (K, 101) of the detections with a score of at least 0, 0.01, ..., 1, by its definition."""
    curves = []
    for k in range(len(matches.classes)):
        objects = (~matches.ignored[0] & (matches.object_label == k)).sum()
        mine = [
            matches.verdict[0, (matches.label == k) & (matches.score >= least), 0] for least in np.linspace(0, 1, 101)
        ]
        counts = [((one == TRUE).sum(), (one == FALSE).sum()) for one in mine]
        curves.append([2 * right / (objects + right + wrong) if objects else np.nan for right, wrong in counts])
    return np.array(curves)


def test_curves_are_those_of_the_drawn_images() -> None:
    truth = coco_truth(15, 5, 4)
    found = [{**one, 'score': one['score'] + 1e-6 * i} for i, one in enumerate(coco_detections(truth, 4))]
    draws = draw_images(15, 3, np.random.default_rng(0))
    precision, f1 = curves(match(truth, found, 'bbox'), draws)
    for r, counts in enumerate(draws.counts.T):
        matches = match(*drawn(truth, found, counts), 'bbox')
        expected = precision_at_recall(matches)[[0, 5]]
        assert precision[:, r] == pytest.approx(class_mean(expected.swapaxes(1, 2)), abs=1e-12)
        assert f1[r] == pytest.approx(class_mean(f1_at_scores(matches).T), abs=1e-12)


# Two objects of class 0 and one of class 1; the first two are found.
OBJECTS = [(1, 0, 0, 0, 100, 100), (1, 0, 0, 200, 100, 300), (1, 1, 200, 0, 300, 100)]
RIGHT = [(1, 0, 0, 0, 100, 100, 0.8), (1, 0, 0, 200, 100, 300, 0.3)]
FIRST = 100 * (51 * 1 + 50 * 2 / 3) / 101  # AP of right, wrong, right of 2 objects


@pytest.mark.parametrize(('kind', 'wrong', 'more', 'missed'), [
    # An object of class 1 found as class 0, between the right ones. Corrected, both classes have an AP of 1.
    ('Cls', (1, 0, 200, 0, 300, 100, 0.5), 100 - FIRST / 2, 0),
    # Overlaps its object, the one of class 1, by 0.4.
    ('Loc', (1, 1, 200, 0, 300, 40, 0.5), 50, 0),
    # The same, found as class 0.
    ('Both', (1, 0, 200, 0, 300, 40, 0.5), (100 - FIRST) / 2, FIRST / 2),
    ('Bkg', (1, 0, 600, 0, 700, 100, 0.5), (100 - FIRST) / 2, FIRST / 2),
    ('Dupe', (1, 0, 0, 0, 100, 90, 0.5), (100 - FIRST) / 2, FIRST / 2),
])  # fmt: skip
def test_each_kind_of_error_by_hand(kind: str, wrong: tuple, more: float, missed: float) -> None:
    """Without the missed object of class 1 that class has no AP, and the mean is that of class 0."""
    matches = match(*of_boxes(OBJECTS, [*RIGHT, wrong]), 'bbox')
    costs = {name: values[0] for name, values in error_costs(matches, Draws(np.ones((1, 1)))).items()}
    assert costs == pytest.approx(dict.fromkeys(costs, 0) | {kind: more, 'Miss': missed}, abs=1e-9)


def test_of_two_corrected_detections_one_is_right() -> None:
    found = [*RIGHT, (1, 1, 200, 0, 300, 40, 0.5), (1, 1, 200, 0, 300, 45, 0.4)]
    matches = match(*of_boxes(OBJECTS, found), 'bbox')
    assert error_costs(matches, Draws(np.ones((1, 1))))['Loc'][0] == pytest.approx(50)
