"""Measures of saliency maps, each by its paper, on numpy alone. F: Achanta et al., CVPR 09. S: Fan et al., ICCV 17.

Maps are float64 (H, W) in [0, 1], masks bool.
"""

from itertools import product

import numpy as np

BETA2 = 0.3


def stretched(grey: np.ndarray) -> np.ndarray:
    """A map of uint8, from its least and greatest value to 0 and 1; a constant one is divided by 255."""
    low, high = int(grey.min()), int(grey.max())
    return (grey.astype(np.float64) - low) / (high - low) if high > low else grey / 255


def levels(grey: np.ndarray) -> np.ndarray:
    """The thresholds out of 255 that each pixel reaches, in whole numbers."""
    low, high = (int(grey.min()), int(grey.max())) if grey.max() > grey.min() else (0, 255)
    return 255 * (grey.astype(np.int64) - low) // (high - low)


def precision_recall(found: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """0 where nothing is found, or nothing is to be found."""
    right = float((found & mask).sum())
    return right / max(found.sum(), 1), right / max(mask.sum(), 1)


def f_measure(precision: float, recall: float, beta2: float = BETA2) -> float:
    weight = beta2 * precision + recall
    return (1 + beta2) * precision * recall / weight if weight else 0.0


def curves(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Precision, recall and F at the thresholds 255, 254, ..., 0, as (3, 256)."""
    reached = levels(grey)
    pairs = [precision_recall(reached >= threshold, mask) for threshold in range(255, -1, -1)]
    return np.array([(*pair, f_measure(*pair)) for pair in pairs]).T


def s_measure(values: np.ndarray, mask: np.ndarray) -> float:
    """Half object-aware, half region-aware similarity."""
    if not mask.any():
        return float(1 - values.mean())
    if mask.all():
        return float(values.mean())
    share = mask.mean()
    objects = share * _object(values[mask]) + (1 - share) * _object(1 - values[~mask])
    rows, columns = np.nonzero(mask)
    y, x = int(np.floor(rows.mean() + 0.5)) + 1, int(np.floor(columns.mean() + 0.5)) + 1
    regions = 0.0
    for part in product((slice(y), slice(y, None)), (slice(x), slice(x, None))):
        if mask[part].size:
            regions += mask[part].size / mask.size * _similarity(values[part], mask[part].astype(float))
    return max(0.0, (objects + regions) / 2)


def _object(x: np.ndarray) -> float:
    spread = x.std(ddof=1) if x.size > 1 else 0.0
    return 2 * x.mean() / (x.mean() ** 2 + 1 + spread)


def _similarity(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM without constants: 4 mean(x) mean(y) cov(x, y) / ((mean(x)^2 + mean(y)^2) (var(x) + var(y)))."""
    free = max(x.size - 1, 1)
    dx, dy = x - x.mean(), y - y.mean()
    above = 4 * x.mean() * y.mean() * (dx * dy).sum() / free
    below = (x.mean() ** 2 + y.mean() ** 2) * ((dx * dx).sum() + (dy * dy).sum()) / free
    return above / below if above else float(below == 0)


def one_image(grey: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray | float]:
    values = stretched(grey)
    measured = dict(zip(('precision', 'recall', 'F'), curves(grey, mask), strict=True))
    adaptive_f = f_measure(*precision_recall(values >= min(2 * values.mean(), 1.0), mask))
    return {**measured, 'adpF': adaptive_f, 'MAE': float(np.abs(values - mask).mean()), 'Sm': s_measure(values, mask)}
