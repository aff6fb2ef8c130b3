"""Metrics of saliency maps, image by image, and those of a data set from sums over its images.

PySODMetrics computes them. Its classes measure one data set each; here every image has its own objects, so that
several data sets and processes can be measured at once. The metrics equal those of the library run over a whole set.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from mmres2net.errors import UserError

BETA2 = 0.3  # beta squared of all F-measures but the weighted one (Achanta et al., CVPR 2009)
Measured = dict[str, np.ndarray]  # of one image, or sums over images


def load_library() -> ModuleType:
    """Import PySODMetrics; a UserError if it is not installed."""
    try:
        return importlib.import_module('py_sod_metrics')
    except ImportError as error:
        what = f'SaliencyMetric needs the package pysodmetrics, which cannot be imported ({error})'
        raise UserError(f'{what}; pip install pysodmetrics') from error


def measure(prediction: np.ndarray, truth: np.ndarray, *, stretch: bool = True) -> Measured:
    """Measure a saliency map, (H, W) of uint8, 255 on the object; ``truth`` is (H, W) of bool.

    With ``stretch`` the map is rescaled first, so that its minimum is 0 and its maximum 1. The result has
    ``precision``, ``recall``, ``F`` and ``E`` at 256 thresholds, 255 / 255 first and 0 last, the scalars ``adpF``,
    ``adpE``, ``MAE``, ``Sm`` and ``wF``, and 1 as ``images``.
    """
    library = load_library()
    counts = library.FmeasureV2(
        {
            'F': library.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA2),
            'precision': library.PrecisionHandler(with_dynamic=True, with_adaptive=False),
            'recall': library.RecallHandler(with_dynamic=True, with_adaptive=False),
        }
    )
    error, weighted, structure, alignment = (
        library.MAE(), library.WeightedFmeasure(), library.Smeasure(), library.Emeasure()
    )  # fmt: skip
    ssim = structure.ssim
    # If the object is at the right or lower border, some quadrants have no pixels. Their weight is 0, but the library's
    # value for them is NaN, which would make the sum NaN.
    structure.ssim = lambda pred, gt: ssim(pred, gt) if pred.size else 0.0
    for one in (counts, error, weighted, structure, alignment):
        if stretch:
            one.step(prediction, truth.astype(np.uint8) * 255)
        else:
            one.step(prediction / 255, truth, normalize=False)
    curves, aligned = counts.get_results(), alignment.get_results()['em']
    measured = {name: curves[name]['dynamic'] for name in ('precision', 'recall', 'F')} | {
        'E': aligned['curve'],
        'adpF': curves['F']['adaptive'],
        'adpE': aligned['adp'],
        'MAE': error.get_results()['mae'],
        'Sm': structure.get_results()['sm'],
        'wF': weighted.get_results()['wfm'],
        'images': 1,
    }
    return {name: np.asarray(value, dtype=np.float64) for name, value in measured.items()}


def add(sums: Mapping[str, np.ndarray] | None, more: Mapping[str, np.ndarray]) -> Measured:
    """Return the sums of both; None counts as zeros."""
    return dict(more) if sums is None else {name: sums[name] + value for name, value in more.items()}


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
