"""What an evaluation keeps of each image, whatever its metrics are: for plots, and to compare runs later."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement

from mmres2net.evaluation.matches import SHOWN, Matches, arrays_of, match
from mmres2net.evaluation.voc import FALSE, TRUE, ImageBoxes, judge

Record = dict[str, Any]
TOP = 5  # classes of a classifier that are kept


def record_of(sample: Any, classes: int) -> Record | None:
    """Return what is kept of an evaluated image: its ``task``, name, score in [0, 1] and arrays.

    The score is NaN where there is nothing to find and nothing was found. None: it lacks annotation or prediction.
    """
    if not isinstance(sample, BaseDataElement):
        return None
    image = {'image': str(sample.get('img_path') or sample.get('img_id') or '')}
    if 'gt_instances' in sample and 'pred_instances' in sample:
        return image | _boxes(sample)
    if 'gt_sem_seg' in sample and 'pred_sem_seg' in sample:
        return image | _pixels(sample, classes)
    if 'gt_label' in sample and 'pred_score' in sample and sample.gt_label.numel() == 1:
        return image | _label(sample)
    return None


def _array(values: Any) -> np.ndarray:
    return getattr(values, 'tensor', values).detach().cpu().numpy()  # boxes of mmdet hold a tensor


def _boxes(sample: Any) -> Record:
    parts = [sample.get(name) for name in ('gt_instances', 'ignored_instances') if name in sample]
    objects = np.concatenate([_array(part.bboxes).reshape(-1, 4) for part in parts])
    labels = np.concatenate([_array(part.labels) for part in parts])
    ignored = np.repeat([False, True][: len(parts)], [len(part) for part in parts])
    boxes, scores, found = (_array(sample.pred_instances[name]) for name in ('bboxes', 'scores', 'labels'))
    right, wrong, shown = 0, 0, scores >= SHOWN
    for label in np.unique(found[shown]):
        mine, theirs = shown & (found == label), labels == label
        verdict = judge(ImageBoxes(boxes[mine], scores[mine], objects[theirs], ignored[theirs]), 0.5)
        right, wrong = right + int((verdict == TRUE).sum()), wrong + int((verdict == FALSE).sum())
    total = right + wrong + int((~ignored).sum())
    f1 = 2 * right / total if total else math.nan
    truth = {'objects': objects, 'object_labels': labels, 'ignored': ignored}
    kept = {'boxes': boxes, 'scores': scores, 'labels': found, **truth}
    return {'task': 'detection', 'score': f1, 'truth_hash': _hash(*truth.values()), **kept}


def _pixels(sample: Any, classes: int) -> Record:
    truth, found = (_array(sample.get(name).data).ravel().astype(np.int64) for name in ('gt_sem_seg', 'pred_sem_seg'))
    counted = (truth >= 0) & (truth < classes) & (found >= 0) & (found < classes)
    pairs, counts = np.unique(truth[counted] * classes + found[counted], return_counts=True)
    table = np.bincount(pairs, counts, classes**2).reshape(classes, classes)
    there, union = table.sum(1) > 0, table.sum(0) + table.sum(1) - np.diag(table)
    iou = float((np.diag(table)[there] / union[there]).mean()) if there.any() else math.nan
    return {'task': 'segmentation', 'score': iou, 'truth_hash': _hash(truth), 'pairs': pairs, 'pixels': counts}


def _label(sample: Any) -> Record:
    scores, truth = _array(sample.pred_score).ravel(), int(sample.gt_label)
    top = np.argsort(-scores, kind='stable')[:TOP]
    kept = {'truth': truth, 'truth_hash': truth, 'top': top, 'scores': scores[top]}
    return {'task': 'classification', 'score': float(scores[truth]), **kept}


def _hash(*arrays: np.ndarray) -> int:
    return zlib.crc32(b''.join(array.tobytes() for array in arrays))


def coco_form(records: Sequence[Record], classes: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the boxes of records as a COCO annotation dict and detections; ids begin at 1."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for i, one in enumerate(records, 1):
        for part, target in ((('objects', 'object_labels', 'ignored'), truth), (('boxes', 'labels', 'scores'), found)):
            for (x1, y1, x2, y2), label, value in zip(*(one[name].tolist() for name in part), strict=True):
                box = {'image_id': i, 'category_id': label + 1, 'bbox': [x1, y1, x2 - x1, y2 - y1]}
                target.append({**box, 'ignore' if target is truth else 'score': value})
    images = [{'id': i, 'file_name': one['image']} for i, one in enumerate(records, 1)]
    categories = [{'id': k, 'name': name} for k, name in enumerate(classes, 1)]
    return {'images': images, 'categories': categories, 'annotations': truth}, found


def collected(
    records: Sequence[Record], classes: Sequence[str], matches: Mapping[str, Matches] | None = None
) -> dict[str, Any]:
    """Return the records of an evaluation, one for each image, all of one task, as arrays.

    ``matches`` of detections are those of :class:`~mmres2net.evaluation.COCOMetric`; None: those of the records. Keys:
    ``task``, ``classes``, ``images`` (I,), ``scores`` (I,) and ``truth_hash`` (I,) of the annotation. For detection
    ``KIND.NAME`` for each array of :class:`~mmres2net.evaluation.matches.Matches`; for segmentation ``image``,
    ``truth``, ``found`` and ``pixels`` of each pair of classes in an image; for classification ``truth`` (I,), ``top``
    (I, 5) and ``top_scores``.
    """
    task = records[0]['task']
    arrays = {name: np.array([one[name[:-1]] for one in records]) for name in ('images', 'scores')}
    hashes = np.array([one['truth_hash'] for one in records], np.int64)
    arrays |= {'task': np.array(task), 'classes': np.array(classes, np.str_), 'truth_hash': hashes}
    if task == 'detection':
        for kind, one in (matches or {'bbox': match(*coco_form(records, classes), 'bbox')}).items():
            arrays |= arrays_of(one, kind)
        return arrays
    if task == 'segmentation':
        pairs, pixels = (np.concatenate([one[name] for one in records]) for name in ('pairs', 'pixels'))
        truth, found = np.divmod(pairs, len(classes))
        image = np.repeat(np.arange(len(records)), [len(one['pairs']) for one in records])
        return arrays | {'image': image, 'truth': truth, 'found': found, 'pixels': pixels}
    names = {'truth': 'truth', 'top': 'top', 'top_scores': 'scores'}
    return arrays | {name: np.stack([one[key] for one in records]) for name, key in names.items()}


def evaluated(records: Sequence[Record], classes: Sequence[str], metrics: Sequence[Any]) -> dict[str, Any]:
    """Return the arrays of :func:`collected` and those that the ``metrics`` of the evaluation kept."""
    matches = next((one.matches for one in metrics if getattr(one, 'matches', None)), None)
    arrays = collected(records, classes, matches)
    for metric in metrics:
        arrays |= getattr(metric, 'kept', {})
    return arrays
