"""The metrics of a run in all replicates, from the arrays that its evaluation kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mmres2net.compare.detection import coco_metrics, curves, error_costs, voc_metrics
from mmres2net.compare.statistics import Array, Draws, class_mean
from mmres2net.evaluation.matches import GRID, IGNORED, TRUE, confusion_matrix, matches_of
from mmres2net.saliency.metrics import dataset_metrics

Arrays = Mapping[str, Array]
BINS = 10  # of confidence
FEWER = 500  # replicates of curves and of what errors cost
KINDS = ('bbox', 'segm')
ERRORS = ('MAE',)  # metrics of which less is better


class Plot(NamedTuple):
    """A curve in R replicates: ``values`` (R, X)."""

    title: str
    group: str
    xlabel: str
    ylabel: str
    x: Array
    values: Array


@dataclass
class Measured:
    """What is computed of a run, in R replicates, by group and name."""

    metrics: dict[tuple[str, str], Array] = field(default_factory=dict)  # (R,), the main metric first
    by_class: dict[str, tuple[str, Array]] = field(default_factory=dict)  # by group: what it is, (R, K)
    errors: dict[tuple[str, str], Array] = field(default_factory=dict)  # (R,), what each kind of error costs
    plots: list[Plot] = field(default_factory=list)
    confidence: dict[str, tuple[Array, Array]] = field(default_factory=dict)  # by group: scores, and which are right
    confusion: dict[str, Array] = field(default_factory=dict)  # counts by group; rows are annotated classes
    scores: Array = field(default_factory=lambda: np.empty(0))  # (I,) of each image
    score: str = ''  # what they are


def task_of(arrays: Arrays) -> str:
    """Return the task of kept arrays: what ``task`` says, or ``saliency``."""
    return 'saliency' if 'saliency.MAE' in arrays else str(arrays['task'])


def measure(arrays: Arrays, draws: Draws) -> Measured:
    """Return what is computed of a run."""
    tasks = dict(detection=_detection, segmentation=_segmentation, classification=_classification, saliency=_saliency)
    with np.errstate(invalid='ignore', divide='ignore'):  # 0 / 0 is NaN: there is no such metric
        return tasks[task_of(arrays)](arrays, draws)


def _detection(arrays: Arrays, draws: Draws) -> Measured:
    fewer = Draws(draws.counts[:, : FEWER + 1])
    done = Measured(scores=arrays['scores'], score='F1 of the boxes with a score of 0.3 or more')
    for kind in (kind for kind in KINDS if f'{kind}.score' in arrays):
        matches = matches_of(arrays, kind)
        if 'voc.score' in arrays:
            name, ap = f'AP{100 * float(arrays["voc.iou_thr"]):g}', voc_metrics(arrays, len(matches.classes), draws)
            metrics = {name: class_mean(ap)}
        else:
            name, (metrics, ap) = 'AP', coco_metrics(matches, draws)
        done.metrics |= {(kind, key): values for key, values in metrics.items()}
        done.by_class[kind] = (name, ap)
        done.errors |= {(kind, key): values for key, values in error_costs(matches, fewer).items()}
        precision, f1 = curves(matches, fewer)
        for values, least in zip(precision, ('0.5', '0.75'), strict=True):
            title = f'Precision by recall at IoU {least}'
            done.plots.append(Plot(title, kind, 'recall', 'precision', GRID, values))
        done.plots.append(Plot('F1 by score at IoU 0.5', kind, 'least score', 'F1', GRID, f1))
        counted = matches.verdict[0, :, 0] != IGNORED
        done.confidence[kind] = (matches.score[counted], matches.verdict[0, counted, 0] == TRUE)
        done.confusion[kind] = confusion_matrix(matches)
    return done


def _segmentation(arrays: Arrays, draws: Draws) -> Measured:
    size, classes = len(arrays['images']), len(arrays['classes'])
    image, truth, found, pixels = (arrays[name] for name in ('image', 'truth', 'found', 'pixels'))

    def counts(label: Array, which: Array) -> Array:
        table = np.bincount((image * classes + label)[which], pixels[which], size * classes)
        return draws.counts.T @ table.reshape(size, classes)

    every = np.ones(len(image), bool)
    both, annotated, predicted = counts(truth, truth == found), counts(truth, every), counts(found, every)
    iou = 100 * both / (annotated + predicted - both)
    metrics = {'mIoU': class_mean(iou), 'aAcc': 100 * both.sum(1) / annotated.sum(1)}
    metrics['mAcc'] = class_mean(100 * both / annotated)
    done = Measured({('', name): values for name, values in metrics.items()}, {'': ('IoU', iou)})
    done.confusion[''] = np.bincount(truth * classes + found, pixels, classes**2).reshape(classes, classes)
    done.scores, done.score = arrays['scores'], 'mean IoU of the annotated classes'
    return done


def _classification(arrays: Arrays, draws: Draws) -> Measured:
    truth, top, classes = arrays['truth'], arrays['top'], len(arrays['classes'])
    right = top == truth[:, None]
    metrics = {('', 'top-1 accuracy'): right[:, 0]}
    if classes > top.shape[1] > 1:
        metrics['', f'top-{top.shape[1]} accuracy'] = right.any(1)
    share = {key: 100 * hits @ draws.counts / len(truth) for key, hits in metrics.items()}
    own = np.eye(classes)[truth]
    by_class = 100 * (draws.counts.T @ (own * right[:, :1])) / (draws.counts.T @ own)
    done = Measured(share, {'': ('top-1 accuracy', by_class)})
    done.confidence[''] = (arrays['top_scores'][:, 0], right[:, 0])
    done.confusion[''] = np.bincount(truth * classes + top[:, 0], minlength=classes**2).reshape(classes, classes)
    done.scores, done.score = arrays['scores'], 'score of the annotated class'
    return done


def _saliency(arrays: Arrays, draws: Draws) -> Measured:
    kept = {name[9:]: values for name, values in arrays.items() if name.startswith('saliency.')}
    sets, done = kept.pop('set'), Measured(scores=kept['F'].mean(1), score='mean F over thresholds')
    for name in np.unique(sets).tolist():
        weights = draws.counts[sets == name].T
        sums = {key: weights @ values[sets == name] for key, values in kept.items()}
        rows = [dataset_metrics({key: values[r] for key, values in sums.items()}) for r in range(len(weights))]
        done.metrics |= {(name, key): np.array([row[key] for row in rows]) for key in rows[0]}
        precision, recall = (sums[k][: FEWER + 1] / sums['images'][: FEWER + 1, None] for k in ('precision', 'recall'))
        threshold = np.linspace(1, 0, precision.shape[1])
        for what, values in (('Precision', precision), ('Recall', recall)):
            title = f'{what} by threshold'
            done.plots.append(Plot(title, name, 'threshold', what.lower(), threshold, values))
    return done


def calibration(confidence: Array, right: Array) -> tuple[Array, Array, Array, float]:
    """Return mean confidence, accuracy and count (10) of bins of equal width, and the expected calibration error."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid='ignore'):
        mean, share = (np.bincount(place, values, BINS) / count for values in (confidence, right))
        error = np.nansum(np.abs(mean - share) * count) / count.sum()
    return mean, share, count, float(error)
