"""Which detection found which object, image by image: the base of curves, confusion matrices and comparisons of runs.

The rules are COCO's (https://cocodataset.org/#detection-eval): ten IoU thresholds, four ranges of areas, at most 100
detections of a class in an image, crowds ignored. The AP follows from the arrays alone, that of resampled images by
:mod:`mmres2net.compare.detection`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks

from mmres2net.data.formats.base import is_polygon, polygon_numbers, rle_fault
from mmres2net.data.formats.objects import read_box, read_crowd

THRESHOLDS = np.linspace(0.5, 0.95, 10)
GRID = np.linspace(0, 1, 101)  # of recalls and of scores
SIZES = {'s': 1, 'm': 2, 'l': 3}  # index of the range of areas
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])  # all, small, medium, large
LIMIT = 100
TRUE, FALSE, IGNORED = 1, 0, -1
SHOWN = 0.3  # the least score in confusion matrices
BACKGROUND = 0.1  # a detection that overlaps all objects by less is one of the background
CLS, LOC, BOTH, DUPE, BKG = range(1, 6)  # kinds of wrong detections
Array = np.ndarray[Any, Any]
Objects = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Matches:
    """The matches of D detections with G objects; detections are ordered by image, class and falling score.

    The kinds of wrong detections are TIDE's (Bolya et al., ECCV 2020, section 2.2), at IoU 0.5: CLS: on an object of
    another class; LOC: overlaps one of its class by 0.1 to 0.5; BOTH: the same of another class; DUPE: its object is
    taken; BKG: overlaps none.
    """

    images: Array  # (I,) names of the images, in the protocol's order; without a file name, their ids
    classes: Array  # (K,) names
    image: Array  # (D,)
    label: Array  # (D,)
    score: Array  # (D,)
    verdict: Array  # (4, D, 10) TRUE, FALSE or IGNORED, for each range of areas and IoU threshold
    # (D,) the object that a detection overlaps most, by 0.5 or more, of those that no detection of a higher score has,
    # whatever the classes; -1 without one
    partner: Array
    kind: Array  # (D,) 0, or why a detection is wrong
    target: Array  # (D,) the object that a right detection has, or that one of kind CLS or LOC would have; else -1
    object_image: Array  # (G,)
    object_label: Array  # (G,)
    ignored: Array  # (4, G) whether an object does not count in a range of areas


def usable_annotation(entry: Mapping[str, Any], kind: str, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return box, crowd flag, area and, for ``segm``, mask of an annotation of an ``image`` in a COCO file.

    Without ``iscrowd`` it is no crowd; without ``area`` its area is that of its mask or box. A ValueError says that it
    cannot be evaluated.
    """
    if not all(map(math.isfinite, read_box(entry))):
        raise ValueError(f'bbox is {entry["bbox"]!r}')
    result: dict[str, Any] = {'bbox': list(entry['bbox']), 'iscrowd': int(read_crowd(entry))}
    area = entry.get('area')
    if area is not None and not isinstance(area, int | float):
        raise ValueError(f'area is {area!r}, not a number')
    if kind == 'segm':
        result['segmentation'] = _run_lengths(entry.get('segmentation'), image)
    if area is None or not math.isfinite(area):
        area = float(coco_masks.area(result['segmentation'])) if kind == 'segm' else entry['bbox'][2] * entry['bbox'][3]
    return {**result, 'area': area}


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mask as compressed run lengths of the image's size; polygons of fewer than three points do not count."""
    if not segmentation:
        raise ValueError("no segmentation, but metric='segm' needs the mask of each object")
    height, width = image.get('height'), image.get('width')
    if not isinstance(height, int) or not isinstance(width, int):
        raise ValueError(f'width and height of its image are {width!r} and {height!r}, not whole numbers')
    if isinstance(segmentation, dict):
        fault = rle_fault(segmentation)
        if fault or list(segmentation['size']) != [height, width]:
            raise ValueError(fault or f'run lengths of size {segmentation["size"]} in an image of {[height, width]}')
        compressed = isinstance(segmentation['counts'], str | bytes)
        return segmentation if compressed else coco_masks.frPyObjects(segmentation, height, width)
    numbers = [polygon_numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else [None]
    if any(one is None for one in numbers):
        raise ValueError(f'its segmentation {segmentation!r:.60} is neither polygons nor run lengths')
    polygons = [list(one) for one in numbers if one is not None and is_polygon(one)]
    if not polygons:
        raise ValueError("no polygon of three points, but metric='segm' needs the mask of each object")
    return coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))


def match(truth: Mapping[str, Any], detections: Objects, kind: str) -> Matches:
    """Match detections with the objects of a COCO annotation dict; ``kind`` is ``bbox`` or ``segm``.

    An annotation with ``ignore`` and no ``iscrowd`` is ignored with plain IoUs, as PASCAL VOC's difficult objects are.
    Detections are dicts with ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) or, for masks,
    ``segmentation`` (compressed RLE). A ValueError says why an annotation cannot be evaluated.
    """
    key = 'bbox' if kind == 'bbox' else 'segmentation'
    images = list(truth['images'])
    if all(isinstance(image['id'], int | float) for image in images):
        images.sort(key=lambda image: image['id'])  # detections of equal score are ranked by it
    place = {image['id']: i for i, image in enumerate(images)}
    label = {one['id']: k for k, one in enumerate(truth['categories'])}
    objects: list[dict[str, Any]] = []
    theirs: list[list[int]] = [[] for _ in images]
    for entry in truth['annotations']:
        i = place[entry['image_id']]
        one = usable_annotation(entry, kind, images[i])
        theirs[i].append(len(objects))
        ignored = bool(one['iscrowd'] or entry.get('ignore'))
        objects.append({**one, 'image': i, 'label': label[entry['category_id']], 'ignore': ignored})
    found: list[list[dict[str, Any]]] = [[] for _ in images]
    for entry in detections:
        size = entry['bbox'][2] * entry['bbox'][3] if kind == 'bbox' else float(coco_masks.area(entry[key]))
        found[place[entry['image_id']]].append({**entry, 'label': label[entry['category_id']], 'area': size})
    kept: list[list[dict[str, Any]]] = []
    verdicts, partners, kinds, targets = [np.empty((4, 0, 10), np.int8)], [], [], []
    for mine, numbers in zip(found, theirs, strict=True):
        mine.sort(key=lambda one: (one['label'], -one['score']))
        labels = np.array([one['label'] for one in mine], int)
        mine = [one for i, one in enumerate(mine) if i < LIMIT or labels[i - LIMIT] != labels[i]]
        kept.append(mine)
        overlaps = _overlaps(mine, [objects[n] for n in numbers], key)
        judged = list(_judge(mine, objects, numbers, overlaps))
        verdicts += [verdict for verdict, _ in judged]
        partners += _partners(mine, numbers, overlaps)
        for each in _errors(mine, [objects[n] for n in numbers], overlaps, judged):
            kinds.append(each[0])
            targets.append(numbers[each[1]] if each[1] >= 0 else -1)
    flat = [(i, one) for i, mine in enumerate(kept) for one in mine]
    return Matches(
        images=np.array([str(image.get('file_name', image['id'])) for image in images], np.str_),
        classes=np.array([str(one['name']) for one in truth['categories']], np.str_),
        image=np.array([i for i, _ in flat], np.int32),
        label=np.array([one['label'] for _, one in flat], np.int32),
        score=np.array([one['score'] for _, one in flat], float),
        verdict=np.concatenate(verdicts, 1),
        partner=np.array(partners, np.int32),
        kind=np.array(kinds, np.int8),
        target=np.array(targets, np.int32),
        object_image=np.array([one['image'] for one in objects], np.int32),
        object_label=np.array([one['label'] for one in objects], np.int32),
        ignored=_outside(objects) | np.array([one['ignore'] for one in objects], bool),
    )


def _outside(objects: Objects) -> Array:
    """Return (4, N) whether the areas of objects or detections are out of each range."""
    area = np.array([one['area'] for one in objects], float)
    return (area < AREAS[:, :1]) | (area > AREAS[:, 1:])


def _overlaps(found: Objects, objects: Objects, key: str) -> Array:
    shapes = [[one[key] for one in group] for group in (found, objects)]
    overlaps = coco_masks.iou(*shapes, [one['iscrowd'] for one in objects]) if found and objects else ()
    return np.asarray(overlaps, float).reshape(len(found), len(objects))


def _judge(found: Objects, objects: Objects, numbers: Sequence[int], overlaps: Array) -> Iterator[tuple[Array, Array]]:
    """Yield for the detections of each class in an image (4, D, 10) of TRUE, FALSE and IGNORED, and (D,) which of
    ``numbers`` each has at IoU 0.5, -1 without one."""
    labels, places = np.array([one['label'] for one in found], int), np.array(numbers, int)
    theirs = np.array([objects[n]['label'] for n in numbers], int)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for label in np.unique(labels):
        mine, here = np.flatnonzero(labels == label), np.flatnonzero(theirs == label)
        verdict = np.where(_outside([found[d] for d in mine]), IGNORED, FALSE).astype(np.int8)[..., None].repeat(10, -1)
        group = [objects[n] for n in places[here]]
        sink = np.array([one['ignore'] for one in group], bool)
        has = np.full(len(mine), -1)
        ignored, taken = _outside(group) | sink, np.zeros((4, 10, len(group)), bool)
        for d, row in enumerate(overlaps[np.ix_(mine, here)]):
            if not (row >= THRESHOLDS[0]).any():
                continue
            # Of equal overlaps the last one counts, and objects that count come before ignored ones.
            worth = np.argsort(np.argsort(row, kind='stable')) + len(group) * ~ignored[:, None]
            worth = np.where((~taken | sink) & (row >= limits), worth, -1)
            best = worth.argmax(-1)
            a, t = np.nonzero(worth.max(-1) >= 0)
            taken[a, t, best[a, t]] = True
            verdict[a, d, t] = np.where(ignored[a, best[a, t]], IGNORED, TRUE)
            has[d] = here[best[0, 0]] if worth[0, 0].max() >= 0 else -1
        yield verdict, has


def _errors(
    found: Objects, objects: Objects, overlaps: Array, judged: Sequence[tuple[Array, Array]]
) -> Iterator[tuple[int, int]]:
    """Yield the kind and the target, an index of ``objects``, of each detection in an image."""
    if not found:
        return
    verdict, has = (np.concatenate(a) for a in ([one[0][0, :, 0] for one in judged], [one[1] for one in judged]))
    same = np.array([[one['label'] == other['label'] for other in objects] for one in found], bool)
    # A column of zeros, as there may be no object; ignored ones are none.
    counted = np.where([one['ignore'] for one in objects], 0, overlaps)
    own, other = (np.pad(np.where(which, counted, 0), ((0, 0), (0, 1))) for which in (same, ~same))
    best, rival, least = own.max(1), other.max(1), THRESHOLDS[0]
    near = (best >= BACKGROUND) & (best < least)
    kinds = [near, rival >= least, best >= least, np.maximum(best, rival) < BACKGROUND]
    kind = np.where(verdict == FALSE, np.select(kinds, [LOC, CLS, DUPE, BKG], BOTH), 0)
    wanted = np.where(kind == CLS, other.argmax(1), np.where(kind == LOC, own.argmax(1), -1))
    yield from zip(kind.tolist(), np.where(verdict == TRUE, has, wanted).tolist(), strict=True)


def _partners(found: Objects, numbers: Sequence[int], overlaps: Array) -> list[int]:
    partners, overlaps = np.full(len(found), -1), overlaps.copy()
    for d in np.argsort([-one['score'] for one in found], kind='stable') if numbers else ():
        best = overlaps[d].argmax()
        if overlaps[d, best] >= THRESHOLDS[0]:
            partners[d] = numbers[best]
            overlaps[:, best] = -1
    return partners.tolist()


def precision_at_recall(matches: Matches, area: int = 0) -> Array:
    """Return the interpolated precision (10, K, 101) by IoU threshold and class, at recalls of 0, 0.01, ..., 1.

    It is NaN for a class without objects. ``area`` is the index of the range of areas: all, small, medium, large.
    """
    curves = np.full((len(THRESHOLDS), len(matches.classes), len(GRID)), np.nan)
    order = np.argsort(-matches.score, kind='stable')
    for k in range(len(matches.classes)):
        objects = (~matches.ignored[area] & (matches.object_label == k)).sum()
        mine = order[matches.label[order] == k]
        right, wrong = (np.cumsum(matches.verdict[area, mine] == which, 0) for which in (TRUE, FALSE))
        precision = right / (right + wrong + np.spacing(1))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        for t in range(len(THRESHOLDS)) if objects else ():
            curves[t, k] = np.append(best[:, t], 0.0)[np.searchsorted(right[:, t] / objects, GRID)]
    return curves


def average_precision(matches: Matches, area: int = 0) -> Array:
    """Return COCO's AP (10, K) by IoU threshold and class; NaN for a class without objects."""
    return precision_at_recall(matches, area).mean(-1)


def recall_at(matches: Matches, limit: int = LIMIT, area: int = 0) -> Array:
    """Return the recall (10, K) of the first ``limit`` detections of a class in an image; NaN without objects."""
    place, count = np.arange(len(matches.score)), len(matches.classes)
    first = np.diff(matches.image, prepend=-1) | np.diff(matches.label, prepend=-1) != 0
    kept = place - np.maximum.accumulate(np.where(first, place, 0)) < limit
    labels, right = matches.label[kept], matches.verdict[area, kept].T == TRUE
    objects = np.bincount(matches.object_label[~matches.ignored[area]], minlength=count)
    found = np.stack([np.bincount(labels[one], minlength=count) for one in right])
    return found / np.where(objects, objects, np.nan)


def confusion_matrix(matches: Matches) -> Array:
    """Return how often (K + 1, K + 1) an object of a class (row) was found as another; the last is the background.

    At IoU 0.5, of detections with a score of 0.3 or more; what ignored objects take is left out.
    """
    size = len(matches.classes) + 1
    table = np.zeros((size, size), np.int64)
    ignored, shown = matches.ignored[0], matches.score >= SHOWN
    kept = shown & (matches.verdict[0, :, 0] != IGNORED) & ~np.append(ignored, False)[matches.partner]
    rows = np.append(matches.object_label, size - 1)[matches.partner]
    np.add.at(table, (rows[kept], matches.label[kept]), 1)
    missed = ~ignored
    missed[matches.partner[shown & (matches.partner >= 0)]] = False
    np.add.at(table, (matches.object_label[missed], size - 1), 1)
    return table


def arrays_of(matches: Matches, kind: str) -> dict[str, Array]:
    """Return the arrays of ``matches`` under names such as ``bbox.score``, for a file."""
    return {f'{kind}.{name}': array for name, array in asdict(matches).items()}


def matches_of(arrays: Mapping[str, Array], kind: str = 'bbox') -> Matches:
    """Return the matches in ``arrays``, as ``numpy.load('WORK_DIR/evaluation/matches.npz')``; a KeyError without."""
    return Matches(**{name: arrays[f'{kind}.{name}'] for name in Matches.__dataclass_fields__})
