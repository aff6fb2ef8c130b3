"""The paired bootstrap over images, and over seeds where a side has several: intervals of differences.

A replicate draws as many images as there are, with replacement, the same ones for every side. How often each image was
drawn is its weight; metrics are computed again from weighted counts, which equals an evaluation of the drawn images.
Intervals are basic ones (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.2): AP grows
when images are drawn twice, which a basic interval takes off.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import erfc, stdtrit

from mmres2net.compare.result import Difference, Estimate, plain

Array = np.ndarray[Any, Any]
LEVEL = 0.95


class Draws:
    """How often each of I images counts in R replicates (I, R), in three types; replicate 0 counts every image once."""

    def __init__(self, counts: Array) -> None:
        self.counts: Array = np.ascontiguousarray(counts, float)
        self.single: Array = self.counts.astype(np.float32)  # holds them exactly
        self.whole: Array = self.counts.astype(np.int64)


def draw_images(images: int, samples: int, rng: np.random.Generator) -> Draws:
    """Return replicate 0 and ``samples`` others."""
    drawn = [np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(samples)]
    return Draws(np.stack([np.ones(images, int), *drawn], 1))


def draw_seeds(seeds: int, samples: int, rng: np.random.Generator) -> Array:
    """Return the weights (S, R) of S seeds, 1 / S in replicate 0.

    They are normal (a wild bootstrap), such that the variance of a side is that of a mean of S seeds: drawn with
    replacement, two or three seeds give few different means, and a variance that is too small by (S - 1) / S.
    """
    if seeds == 1:
        return np.ones((1, samples + 1))
    noise = rng.standard_normal((seeds, samples + 1)) / (seeds * (seeds - 1)) ** 0.5
    noise[:, 0] = 0
    return 1 / seeds + noise - noise.mean(0)


def pooled(runs: Array, weights: Array, freedom: int) -> Array:
    """Return the replicates (R, ...) of a side from those of its seeds (S, R, ...).

    How the seeds' own values differ is scaled by Student's t of ``freedom`` against the normal distribution: two or
    three seeds say little of how much seeds vary.
    """
    if len(runs) == 1:
        return runs[0]
    scale = stdtrit(freedom, 0.5 + LEVEL / 2) / stdtrit(np.inf, 0.5 + LEVEL / 2)
    noise = weights[:, : runs.shape[1]] - 1 / len(runs)
    return runs.mean(0) + scale * np.tensordot(noise.T, runs[:, 0], 1)


def interval(replicates: Array) -> tuple[Array, Array]:
    """Return low and high (...) of replicates (R, ...), of which the first is the value itself."""
    known = np.where(np.isnan(replicates[1:]), replicates[0], replicates[1:])  # a replicate without such an object
    low, high = np.quantile(known, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return 2 * replicates[0] - high, 2 * replicates[0] - low


def estimate(replicates: Array) -> Estimate:
    """Return the value of replicates (R,) with its interval."""
    return Estimate(*plain([replicates[0], *interval(replicates)]))


def difference(replicates: Array, paper: float | None = None) -> Difference:
    """Return a difference from its replicates (R,)."""
    value, drawn = replicates[0], replicates[1:][~np.isnan(replicates[1:])]
    if np.isnan(value) or not len(drawn):
        return Difference(None, None, None, None, None, None, paper)
    mirrored, error = 2 * value - drawn, drawn.std()
    above = (mirrored > 0).mean() + (mirrored == 0).mean() / 2
    p = erfc(abs(value) / error / 2**0.5) if error else float(value == 0)
    return Difference(*plain([value, *interval(replicates), above, drawn.mean() - value, p, paper]))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted for their number (Holm, Scandinavian Journal of Statistics, 1979)."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted, least = list(values), 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[i] = least
    return adjusted


def class_mean(values: Array) -> Array:
    """Return the mean over the last axis without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    with np.errstate(invalid='ignore'):
        return np.where(known, values, 0).sum(-1) / known.sum(-1)
