"""Metrics of detectors in all replicates of a bootstrap: COCO's twelve, VOC's AP, and what each kind of error costs.

Detections are sorted once. In a replicate the weight of a detection is that of its image; between two right detections
the precision only falls, so the interpolated one is known from the right ones alone.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.sparse import csr_matrix

from mmres2net.compare.statistics import Array, Draws, class_mean
from mmres2net.evaluation.matches import BKG, BOTH, CLS, DUPE, FALSE, GRID, IGNORED, LIMIT, LOC, SIZES, TRUE, Matches

KINDS = {'Cls': CLS, 'Loc': LOC, 'Both': BOTH, 'Dupe': DUPE, 'Bkg': BKG, 'Miss': 0}


def average_precision(image: Array, verdict: Array, objects: Array, draws: Draws, protocol: str = 'coco') -> Array:
    """Return the AP (T, R) of one class by threshold and replicate; NaN without ``objects`` (R,) that count.

    ``image`` (D,) and ``verdict`` (D, T) are those of each detection, in falling order of score. Protocols: ``coco``:
    mean precision at 101 recalls; ``11points`` and ``area`` as in VOC.
    """
    right, counted = verdict == TRUE, verdict != IGNORED
    base = counted[:, -1]  # what counts at one threshold counts at nearly all
    rows = np.flatnonzero((right | (counted != base[:, None])).any(1))
    until = _cumulated(image, base, rows + 1, draws)
    steps = _steps(objects.astype(int), protocol)
    result = np.full((verdict.shape[1], len(objects)), np.nan)
    for t in range(verdict.shape[1]):
        shift = counted[rows, t].astype(int) - base[rows]
        mine = np.flatnonzero(right[rows, t] | (shift != 0))
        result[t] = _area(image[rows[mine]], right[rows[mine], t], shift[mine], until, mine, steps, draws)
    return np.where(objects > 0, result, np.nan)


def _cumulated(image: Array, which: Array, counts: Array, draws: Draws) -> Array:
    """Return the weights (C, R) of ``which`` of the first ``counts`` (C, ascending) detections."""
    place = np.flatnonzero(which)
    ends = np.searchsorted(place, counts)
    place = place[: ends[-1] if len(ends) else 0]
    parts = csr_matrix((np.ones(len(place), np.float32), image[place], [0, *ends]), (len(ends), len(draws.counts)))
    return np.cumsum(parts @ draws.single, 0, dtype=float)


def _steps(objects: Array, protocol: str) -> tuple[Array, Array, Array]:
    """Return how many recalls 0, 1, ... objects reach, for all totals that ``objects`` (R) has, one after another;
    where that of each replicate begins (R); and the number of recalls (R)."""
    totals, which = np.unique(objects, return_inverse=True)
    reached = []
    for total in totals:
        found = np.arange(total + 1)
        if protocol == 'coco':
            found = np.searchsorted(GRID, found / max(total, 1), side='right') * (found > 0)
        elif protocol == '11points':  # in integers: as fractions, a recall of 3 / 10 falls short of 3 * 0.1
            found = (10 * found // max(total, 1) + 1) * (found > 0)
        reached.append(found)
    begin = np.cumsum([0, *totals[:-1] + 1])[which]
    count = np.maximum(objects, 1) if protocol == 'area' else np.full(len(objects), 101 if protocol == 'coco' else 11)
    return np.concatenate(reached).astype(float), begin, count


def _area(
    image: Array, right: Array, shift: Array, until: Array, rows: Array, steps: tuple[Array, Array, Array], draws: Draws
) -> Array:
    """Return the mean (R) of the interpolated precision over the recalls, from the last right detection to the first.

    ``shift`` (E) is what each event adds to the detections that count ``until`` each of ``rows``.
    """
    table, begin, count = steps
    weights, whole = draws.counts, draws.whole
    found, place = weights[image[right]].sum(0), begin + whole[image[right]].sum(0)
    more = shift @ weights[image] if shift.any() else None
    total, best, precision = np.zeros_like(found), np.zeros_like(found), np.empty_like(found)
    level = table.take(place)
    for e in range(len(image) - 1, -1, -1):
        counted = until[rows[e]] if more is None else until[rows[e]] + more
        np.divide(found, np.maximum(counted, 1), out=precision)
        np.maximum(best, precision, out=best)
        if more is not None:
            more -= shift[e] * weights[image[e]]
        if right[e]:
            found -= weights[image[e]]
            place -= whole[image[e]]
            lower = table.take(place)
            level -= lower
            level *= best
            total += level
            level = lower
    return total / count


def by_class(label: Array, score: Array, classes: int) -> Iterator[Array]:
    """Yield for each class the places of its detections, in falling order of score."""
    order = np.lexsort((-score, label))
    ends = np.searchsorted(label[order], np.arange(classes + 1))
    for k in range(classes):
        yield order[ends[k] : ends[k + 1]]


def weighted_sums(image: Array, label: Array, worth: Array, classes: int, draws: Draws) -> Array:
    """Return the weighted sums (R, K) of ``worth`` by class."""
    images = len(draws.counts)
    table = np.bincount(image * np.int64(classes) + label, worth, images * classes).reshape(images, classes)
    return draws.counts.T @ table


def objects_of(matches: Matches, counted: Array, draws: Draws) -> Array:
    """Return how many objects (R, K) of those in the mask ``counted`` (G) there are."""
    return weighted_sums(matches.object_image, matches.object_label, counted, len(matches.classes), draws)


def coco_metrics(matches: Matches, draws: Draws) -> tuple[dict[str, Array], Array]:
    """Return COCO's twelve metrics (R) by name, and the AP by class (R, K), in percent; NaN where nothing counts."""
    objects = [objects_of(matches, ~matches.ignored[area], draws) for area in range(4)]
    ap = np.full((6, len(objects[0]), len(matches.classes)), np.nan)
    for k, mine in enumerate(by_class(matches.label, matches.score, len(matches.classes))):
        image = matches.image[mine]
        for area in range(4):
            each = average_precision(image, matches.verdict[area, mine], objects[area][:, k], draws)
            ap[2 + area if area else 0, :, k] = each.mean(0)
            if not area:
                ap[1:3, :, k] = each[[0, 5]]
    values = dict(zip(('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'), ap, strict=True))
    place = np.arange(len(matches.score))
    first = np.diff(matches.image, prepend=-1) | np.diff(matches.label, prepend=-1) != 0
    place = place - np.maximum.accumulate(np.where(first, place, 0))  # among those of its image and class
    recalls = {**{str(limit): (limit, 0) for limit in (1, 10, LIMIT)}, **{s: (LIMIT, a) for s, a in SIZES.items()}}
    for name, (limit, area) in recalls.items():
        right = (matches.verdict[area] == TRUE).mean(1) * (place < limit)
        found = weighted_sums(matches.image, matches.label, right, len(matches.classes), draws)
        with np.errstate(invalid='ignore', divide='ignore'):
            values[f'AR{name}'] = found / objects[area]
    return {name: 100 * class_mean(each) for name, each in values.items()}, 100 * values['AP']


def voc_metrics(arrays: Mapping[str, Array], classes: int, draws: Draws) -> Array:
    """Return VOC's AP (R, K) by class, in percent, by the protocol of the evaluation that kept ``arrays``."""
    objects, protocol = draws.counts.T @ arrays['voc.objects'], str(arrays['voc.mode'])
    ap = np.empty_like(objects)
    for k, mine in enumerate(by_class(arrays['voc.label'], arrays['voc.score'], classes)):
        verdict = arrays['voc.verdict'][mine, None]
        ap[:, k] = average_precision(arrays['voc.image'][mine], verdict, objects[:, k], draws, protocol)[0]
    return 100 * ap


def error_costs(matches: Matches, draws: Draws) -> dict[str, Array]:
    """Return by how much (R) the AP at IoU 0.5, in percent, grows without each kind of error, by TIDE's definition.

    CLS and LOC are corrected, and of all that would then have an object the one of the highest score is right; other
    wrong detections are removed; MISS removes the objects that nothing has or, corrected, would have.
    """
    before, costs = _ap50(matches, matches.label, matches.verdict[0, :, 0], ~matches.ignored[0], draws), {}
    for name, kind in KINDS.items():
        verdict, label, counted = matches.verdict[0, :, 0].copy(), matches.label, ~matches.ignored[0]
        mine = (matches.kind == kind) & (verdict == FALSE)
        if name == 'Miss':
            reached = matches.target[matches.target >= 0]
            counted = counted & np.isin(np.arange(len(counted)), reached)
        elif kind in (CLS, LOC):
            verdict[mine] = TRUE
            label = np.where(mine, matches.object_label[matches.target] if len(counted) else 0, label)
            order = np.lexsort((-matches.score, matches.target))
            order = order[verdict[order] == TRUE]
            first = np.diff(matches.target[order], prepend=-1) != 0
            verdict[order[~first]] = IGNORED
        else:
            verdict[mine] = IGNORED
        costs[name] = _ap50(matches, label, verdict, counted, draws) - before
    return costs


def _ap50(matches: Matches, label: Array, verdict: Array, counted: Array, draws: Draws) -> Array:
    objects, ap = objects_of(matches, counted, draws), []
    for k, mine in enumerate(by_class(label, matches.score, len(matches.classes))):
        ap += [average_precision(matches.image[mine], verdict[mine, None], objects[:, k], draws)[0]]
    return 100 * class_mean(np.stack(ap, -1))


def curves(matches: Matches, draws: Draws) -> tuple[Array, Array]:
    """Return means over classes: the precision (2, R, 101) at 101 recalls, at IoU 0.5 and 0.75, and F1 (R, 101) of the
    detections with a score of at least 0, 0.01, ..., 1."""
    objects = objects_of(matches, ~matches.ignored[0], draws)
    precision = np.full((2, *objects.shape, len(GRID)), np.nan)
    f1 = np.full((*objects.shape, len(GRID)), np.nan)
    for k, mine in enumerate(by_class(matches.label, matches.score, len(matches.classes))):
        image, total = matches.image[mine], np.where(objects[:, k] > 0, objects[:, k], np.nan)
        for t, verdict in enumerate(matches.verdict[0, mine][:, (0, 5)].T):
            rows = np.flatnonzero(verdict == TRUE)
            found = np.cumsum(draws.counts[image[rows]], 0)
            until = np.maximum(_cumulated(image, verdict != IGNORED, rows + 1, draws), 1)
            best = np.maximum.accumulate((found / until)[::-1])[::-1]
            for r in np.flatnonzero(objects[:, k]):
                precision[t, r, k] = np.append(best[:, r], 0.0)[np.searchsorted(found[:, r] / total[r], GRID)]
            if t == 0:
                ends = np.searchsorted(-matches.score[mine], -GRID[::-1], side='right')
                right, shown = (_cumulated(image, one, ends, draws) for one in (verdict == TRUE, verdict != IGNORED))
                f1[:, k] = (2 * right[::-1] / (total + shown[::-1])).T
    return class_mean(precision.swapaxes(2, 3)), class_mean(f1.swapaxes(1, 2))
