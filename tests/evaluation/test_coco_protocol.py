"""COCO's metrics: by hand, as published, and the same as pycocotools' to the last digit."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmres2net.evaluation.coco import Metrics
from mmres2net.evaluation.coco import evaluate as evaluate_matches
from mmres2net.evaluation.matches import match
from tests.evaluation.samples import coco_detections, coco_truth, triangle


def evaluate(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> Metrics:
    """Match and evaluate."""
    return evaluate_matches(match(truth, found, kind))


def of_boxes(objects: list[tuple], found: list[tuple], *, crowd: tuple = ()) -> tuple[dict[str, Any], list[dict]]:
    """Truth from (image, class, x1, y1, x2, y2), detections from the same with a score at the end."""
    annotations = [
        {'id': i, 'image_id': m, 'category_id': k, 'bbox': [x, y, u - x, v - y], 'area': (u - x) * (v - y),
         'iscrowd': int(i in crowd)} for i, (m, k, x, y, u, v) in enumerate(objects, 1)
    ]  # fmt: skip
    images = [{'id': m, 'width': 700, 'height': 700} for m in sorted({one[0] for one in objects + found})]
    categories = [{'id': k, 'name': str(k)} for k in sorted({one[1] for one in objects + found})]
    detections = [
        {'image_id': m, 'category_id': k, 'bbox': [x, y, u - x, v - y], 'score': s} for m, k, x, y, u, v, s in found
    ]
    return {'images': images, 'categories': categories, 'annotations': annotations}, detections


def test_by_hand() -> None:
    truth, found = of_boxes(
        [(1, 1, 0, 0, 40, 40), (2, 1, 0, 0, 40, 40), (2, 1, 100, 100, 140, 140)],
        [
            (1, 1, 0, 0, 40, 40, 0.9),  # the object itself
            (2, 1, 300, 300, 340, 340, 0.8),  # nothing there
            (2, 1, 0, 0, 40, 24.8, 0.7),  # inside the object, 24.8 of its 40 rows: IoU 0.62
        ],
    )
    metrics = evaluate(truth, found, 'bbox').overall
    # IoU 0.50, 0.55, 0.60: right, wrong, right of 3 objects: precision 1 up to recall 1/3, 2/3 up to recall 2/3. Of
    # the 101 recalls 0, 0.01, ..., 34 are at most 1/3 and 33 more at most 2/3: AP = (34 + 33 * 2/3) / 101 = 56/101.
    # IoU 0.65 to 0.95: the first alone is right: AP = 34/101.
    assert metrics['mAP_50'] == pytest.approx(56 / 101, abs=1e-12)
    assert metrics['mAP_75'] == pytest.approx(34 / 101, abs=1e-12)
    assert metrics['mAP'] == pytest.approx((3 * 56 + 7 * 34) / 1010, abs=1e-12)
    # Recall 2/3 at 3 thresholds and 1/3 at 7; with one detection an image, image 2 keeps the wrong one.
    assert metrics['AR@100'] == metrics['AR@10'] == pytest.approx((3 * 2 / 3 + 7 / 3) / 10, abs=1e-12)
    assert metrics['AR@1'] == pytest.approx(1 / 3, abs=1e-12)
    # All objects have 1,600 pixels: medium. The stray of 1,600 pixels counts there as well.
    assert metrics['mAP_m'] == metrics['mAP']
    assert metrics['AR_m@100'] == metrics['AR@100']
    assert [metrics[name] for name in ('mAP_s', 'mAP_l', 'AR_s@100', 'AR_l@100')] == [-1] * 4


def encoded(polygons: list[list[float]]) -> dict[str, Any]:
    return rle.frPyObjects(polygons, 400, 400)[0]


def masks_of(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Detections of masks instead of boxes, of the shape that the objects have."""
    keys = ('image_id', 'category_id', 'score')
    return [{key: one[key] for key in keys} | {'segmentation': encoded(triangle(one['bbox']))} for one in detections]


def official(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> COCOeval:
    """pycocotools' own evaluation."""
    ours = COCO()
    ours.dataset = copy.deepcopy({'info': {}, **truth})
    ours.createIndex()
    run = COCOeval(ours, ours.loadRes(copy.deepcopy(found)), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(('seed', 'classes', 'per_image'), [(0, 6, 20), (1, 12, 60), (2, 2, 150)])
def test_same_metrics_as_pycocotools(kind: str, seed: int, classes: int, per_image: int) -> None:
    images = 30 if kind == 'bbox' else 12
    truth = coco_truth(images, classes, seed, masks=kind == 'segm')
    found = coco_detections(truth, seed, per_image=per_image)
    annotations = truth['annotations']
    # What the cases are for: crowds, objects on the border of sizes, images without objects or detections, equal
    # scores, a class without objects, more than 100 detections of a class in an image.
    assert any(one['iscrowd'] for one in annotations)
    assert kind == 'segm' or {32.0**2, 96.0**2} <= {one['area'] for one in annotations}
    assert len({one['image_id'] for one in annotations}) < images
    assert len({one['image_id'] for one in found}) < images
    assert len({one['score'] for one in found}) <= 101 < len(found)
    assert len({one['category_id'] for one in annotations}) < classes
    crowded = max(sum(d['image_id'] == m and d['category_id'] == 10 for d in found) for m in range(1, images + 1))
    assert (crowded > 100) == (per_image == 150)
    found = masks_of(found) if kind == 'segm' else found
    before = copy.deepcopy((truth, found))
    metrics = evaluate(truth, found, kind)
    assert (truth, found) == before, 'the caller keeps what it gave'
    assert list(metrics.overall.values()) == pytest.approx(official(truth, found, kind).stats.tolist(), abs=1e-12)
    assert 0.03 < metrics.overall['mAP'] < 0.9
    for one in truth['categories']:
        alone = {**truth, 'categories': [one], 'annotations': [a for a in annotations if a['category_id'] == one['id']]}
        theirs = official(alone, [each for each in found if each['category_id'] == one['id']], kind).stats
        assert list(metrics.by_class[one['name']].values()) == pytest.approx(theirs.tolist(), abs=1e-12)
    assert metrics.by_class[f'class {classes}'] == dict.fromkeys(metrics.overall, -1)
    assert evaluate(truth, [], kind).overall['mAP'] == 0  # no detection


def renamed(entries: list[dict[str, Any]], key: str, rename: Callable[[int, Any], Any]) -> None:
    for i, entry in enumerate(entries):
        entry[key] = rename(i, entry[key])


def ids(key: str, rename: Callable[[int], Any]) -> Callable[[dict[str, Any], list], None]:
    """Rename the ids of ``images`` or ``categories`` (1, 2, ...) in all places."""

    def change(truth: dict[str, Any], found: list[dict[str, Any]]) -> None:
        place = {'images': 'image_id', 'categories': 'category_id'}[key]
        renamed(truth[key], 'id', lambda i, old: rename(old))
        renamed(truth['annotations'] + found, place, lambda i, old: rename(old))

    return change


def annotation(key: str, rename: Callable[[int, Any], Any]) -> Callable[[dict[str, Any], list], None]:
    return lambda truth, found: renamed(truth['annotations'], key, rename)


def without(key: str, place: str = 'annotations') -> Callable[[dict[str, Any], list], None]:
    return lambda truth, found: [entry.pop(key, None) for entry in truth[place]] and None


EXPORTS: dict[str, Callable[[dict[str, Any], list], None]] = {
    'annotation ids from 0': annotation('id', lambda i, old: i),
    'annotation ids that restart': annotation('id', lambda i, old: i % 2 + 1), 'no annotation ids': without('id'),
    'image ids from 0': ids('images', lambda old: old - 1),
    'image ids as texts': ids('images', lambda old: f'img-{old}'),
    'huge image ids': ids('images', lambda old: old + 2**70),
    'category ids from 0': ids('categories', lambda old: old - 1), 'category ids as texts': ids('categories', str),
    'no iscrowd': without('iscrowd'), 'iscrowd as text': annotation('iscrowd', lambda i, old: str(old)),
    'no area': without('area'), 'no image sizes': without('width', 'images'),
    'images without objects': lambda truth, found: truth['images'].append({'id': 99, 'width': 9, 'height': 9}),
    'annotations in another order': lambda truth, found: truth['annotations'].reverse(),
}  # fmt: skip


@pytest.mark.parametrize('case', EXPORTS)
def test_forms_of_a_file_do_not_change_the_metrics(case: str) -> None:
    """Two right detections of three objects, and a wrong one between them, in two classes and three images."""
    objects = [(1, 1, 0, 0, 40, 40), (2, 2, 0, 0, 20, 20), (3, 1, 5, 5, 120, 130)]
    found = [(1, 1, 0, 0, 40, 40), (2, 1, 50, 50, 90, 90), (3, 1, 5, 5, 120, 130), (2, 2, 0, 0, 20, 20)]
    truth, detections = of_boxes(objects, [(*one, 0.9 - i / 10) for i, one in enumerate(found)])
    EXPORTS[case](truth, detections)
    before = copy.deepcopy((truth, detections))
    metrics = evaluate(truth, detections, 'bbox')
    assert (truth, detections) == before
    # Class 1: right, wrong, right of 2: 51 recalls at precision 1, 50 at 2/3. Class 2: its object.
    first = (51 + 50 * 2 / 3) / 101
    assert [round(metrics.by_class[name]['mAP'], 12) for name in '12'] == [round(first, 12), 1]
    assert metrics.overall['mAP'] == pytest.approx((first + 1) / 2, abs=1e-12)
    # By size: 400 pixels are small, 1,600 medium, 14,375 large.
    assert [metrics.overall[f'mAP_{size}'] for size in 'sl'] == pytest.approx([1, 1], abs=1e-12)


MASKS: dict[str, Callable[[list[list[float]]], Any]] = {
    'polygon': lambda polygons: polygons,
    'a stray of two points beside it': lambda polygons: [*polygons, [3, 3, 4, 4]],
    'compressed text': lambda polygons: dict(encoded(polygons), counts=encoded(polygons)['counts'].decode()),
    'compressed bytes': encoded,
    'runs': lambda polygons: {'size': [400, 400], 'counts': runs(rle.decode(encoded(polygons)))},
}


def runs(mask: np.ndarray) -> list[int]:
    """Return the lengths of runs of 0, 1, 0, ... down the columns."""
    flat = np.concatenate([[0], mask.ravel(order='F'), [0]])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()


@pytest.mark.parametrize('form', MASKS)
@pytest.mark.parametrize('area', ['given', 'absent'])
def test_forms_of_a_mask_do_not_change_the_metrics(form: str, area: str) -> None:
    truth = coco_truth(4, 3, 2, masks=True)
    truth['annotations'] = [dict(one, iscrowd=0, segmentation=triangle(one['bbox'])) for one in truth['annotations']]
    found = masks_of([dict(one, score=0.5 + one['id'] / 100) for one in truth['annotations']])
    for one in truth['annotations']:
        one['area'] = float(rle.area(encoded(one['segmentation'])))
    expected = evaluate(truth, found, 'segm').overall
    for one in truth['annotations']:
        one['segmentation'] = MASKS[form](one['segmentation'])
        if area == 'absent':
            del one['area']
    assert expected['mAP'] == 1
    assert evaluate(truth, found, 'segm').overall == pytest.approx(expected, abs=1e-12)
