"""The metrics of salient object detection (table 9), for each data set. PySODMetrics computes them.

Table 9 has F and MAE. It does not say which F; the tools of its time average precision and recall over the images of a
data set at each of 256 thresholds, and report the largest F of these averages (``maxF``). Others average the F of each
image first (``maxF_images``). The two differ by as much as some papers do, so both are reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmres2net.errors import UserError, optional
from mmres2net.evaluation.labels import class_table
from mmres2net.registry import METRICS

BETA2 = 0.3  # beta squared of all F-measures but the weighted one (Achanta et al., CVPR 2009)
SLACK = 1e-4  # in half precision, rounding may move a probability this far out of [0, 1]
Measured = dict[str, np.ndarray]  # of one image, or sums over images


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """Metrics ``maxF``, ``meanF``, ``adpF``, ``wF``, ``MAE``, ``Sm``, ``maxE``, ``meanE``, ``adpE``, ``maxF_images``.

    Samples have the name of their data set (``dataset_name``). With several data sets, the metrics are called
    ``NAME/maxF`` and so on; with one, or without names, ``maxF``, as in ``save_best='maxF', rule='greater'``. All are
    fractions; PySODMetrics computes them.

    Maps are rounded to 8 bits first, exactly as ``mmres2net predict`` writes them, so that the written files have the
    same metrics. Each is then stretched, so that its minimum is 0 and its maximum 1, as DSS does with its output and
    the usual tools with every map; a constant map is not stretched.
    """

    default_prefix = ''

    def __init__(self, *, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        library()
        self.kept: dict[str, Any] = {}  # of the last evaluation, to compare runs

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measure the maps of a batch.

        ``data_samples`` are those of mmseg's models with one output channel: ``seg_logits`` with ``data`` (1, H, W) of
        probabilities, ``gt_sem_seg`` with ``data`` (1, H, W) of 0 and 1, ``img_path`` and maybe ``dataset_name``.
        """
        for sample in data_samples:
            self.results.append((sample.get('dataset_name') or '', measure(*maps_of(sample))))

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metrics of the images of all processes; a UserError if there is none, or more than ``size``."""
        shown, own = len(self.results), -(-size // get_world_size())  # a distributed sampler may repeat one
        if shown > own:
            self.results.clear()
            what = f'{shown} images were evaluated, but this process has {own} of {size}'
            raise UserError(f"{what}; use MMEngine's DefaultSampler")
        return super().evaluate(size)

    def compute_metrics(self, results: list[tuple[str, Measured]]) -> dict[str, float]:
        """Return the metrics of each data set, and log them as a table; a UserError if there is no image."""
        if not results:
            raise UserError('no image was evaluated: the data set or the data loader is empty')
        by_name: dict[str, list[Measured]] = {}
        for name, measured in results:
            by_name.setdefault(name, []).append(measured)
        sums = {name: {key: np.sum([one[key] for one in of], 0) for key in of[0]} for name, of in by_name.items()}
        self.kept = {f'saliency.{key}': np.stack([one[key] for _, one in results]) for key in next(iter(sums.values()))}
        self.kept['saliency.set'] = np.array([name for name, _ in results], np.str_)
        by_set = {name: dataset_metrics(measured) for name, measured in sums.items()}
        head = ['data set', 'images', *next(iter(by_set.values()))]
        rows = [[name or 'all', len(by_name[name]), *row.values()] for name, row in by_set.items()]
        print_log(f'salient objects by data set:\n{class_table(head, rows)}', 'current')
        if len(by_set) == 1:
            return next(iter(by_set.values()))
        return {f'{name or "unnamed"}/{metric}': value for name, row in by_set.items() for metric, value in row.items()}


def maps_of(sample: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return prediction (H, W) uint8 and annotation (H, W) bool of a sample; a UserError where they are wrong."""
    name = sample.get('img_path', 'a sample')
    prediction = grey_map(sample['seg_logits']['data'], name)
    if 'gt_sem_seg' not in sample:
        text = f'{name} has no annotation'
        raise UserError(f'{text}; load the mask in the test pipeline, or use `mmres2net predict`, which needs none')
    truth = np.asarray(sample['gt_sem_seg']['data'].squeeze(0).cpu())
    if truth.shape != prediction.shape:
        what = f'{name}: the prediction has shape {prediction.shape}, the annotation {truth.shape}'
        raise UserError(f'{what}; in the test pipeline, load the mask after Resize')
    unknown = np.setdiff1d(truth, (0, 1))
    if unknown.size:
        what = f'{name}: label {unknown[0]} in the annotation, but a saliency mask has 0 and 1'
        raise UserError(f'{what}; load it with mmres2net.LoadSaliencyMask')
    return prediction, truth.astype(bool)


def grey_map(probabilities: torch.Tensor, name: str) -> np.ndarray:
    """Return probabilities (1, H, W) or (H, W) as grey values ``round(255 p)``, (H, W); others are a UserError."""
    values = probabilities.detach().cpu().double()
    values = values[0] if values.dim() == 3 and values.shape[0] == 1 else values
    if values.dim() != 2 or not values.numel():
        what = f'{name}: the prediction has shape {tuple(probabilities.shape)}, not (1, H, W)'
        raise UserError(f'{what}; a saliency model has one output channel (num_classes=2, out_channels=1 in the heads)')
    if not torch.isfinite(values).all():
        raise UserError(f'{name}: the prediction has NaN or infinite values; the training has probably diverged')
    low, high = float(values.min()), float(values.max())
    if low < -SLACK or high > 1 + SLACK:
        what = f'{name}: predicted values are in {low:.3g} to {high:.3g}'
        raise UserError(f'{what}, but a saliency map has probabilities in 0 to 1; apply a sigmoid to seg_logits')
    return np.asarray((255 * values.clamp(0, 1)).round().to(torch.uint8))


def library() -> Any:
    """Return the module of PySODMetrics; a UserError if it does not import."""
    return optional('py_sod_metrics', 'pysodmetrics', 'saliency metrics')


def measure(prediction: np.ndarray, truth: np.ndarray) -> Measured:
    """Measure a saliency map, (H, W) of uint8, 255 on the object; ``truth`` is (H, W) of bool.

    The result has ``precision``, ``recall``, ``F`` and ``E`` at 256 thresholds, 255 / 255 first and 0 last, the scalars
    ``adpF``, ``adpE``, ``MAE``, ``Sm`` and ``wF``, and 1 as ``images``.
    """
    sod = library()
    counts = sod.FmeasureV2(
        {
            'F': sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA2),
            'precision': sod.PrecisionHandler(with_dynamic=True, with_adaptive=False),
            'recall': sod.RecallHandler(with_dynamic=True, with_adaptive=False),
        }
    )
    error, weighted, structure, alignment = (
        sod.MAE(), sod.WeightedFmeasure(), sod.Smeasure(), sod.Emeasure()
    )  # fmt: skip
    ssim = structure.ssim
    # If the object is at the right or lower border, some quadrants have no pixels. Their weight is 0, but the library's
    # value for them is NaN, which would make the sum NaN.
    structure.ssim = lambda pred, gt: ssim(pred, gt) if pred.size else 0.0
    for one in (counts, error, weighted, structure, alignment):
        one.step(prediction, truth.astype(np.uint8) * 255)
    curves, aligned = counts.get_results(), alignment.get_results()['em']
    measured = {name: curves[name]['dynamic'] for name in ('precision', 'recall', 'F')} | {
        'E': aligned['curve'], 'adpF': curves['F']['adaptive'], 'adpE': aligned['adp'], 'images': 1,
        'MAE': error.get_results()['mae'], 'Sm': structure.get_results()['sm'], 'wF': weighted.get_results()['wfm'],
    }  # fmt: skip
    return {name: np.asarray(value, dtype=np.float64) for name, value in measured.items()}


def dataset_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the metrics of a data set from sums over its images.

    ``maxF`` is the largest F of the averaged precision and recall, as the tools of the paper's time report it;
    ``maxF_images`` is the largest F averaged over images, PySODMetrics' maximum. ``meanF`` and ``meanE`` are means over
    the 256 thresholds; ``adpF`` and ``adpE`` use twice the mean of each map as its threshold.
    """
    mean = {name: value / sums['images'] for name, value in sums.items()}
    precision, recall = mean['precision'], mean['recall']
    weight = BETA2 * precision + recall
    pooled = (1 + BETA2) * precision * recall / np.where(weight > 0, weight, 1)
    values = {
        'maxF': pooled.max(), 'meanF': mean['F'].mean(), 'adpF': mean['adpF'], 'wF': mean['wF'], 'MAE': mean['MAE'],
        'Sm': mean['Sm'], 'maxE': mean['E'].max(), 'meanE': mean['E'].mean(), 'adpE': mean['adpE'],
        'maxF_images': mean['F'].max(),
    }  # fmt: skip
    return {name: float(value) for name, value in values.items()}
