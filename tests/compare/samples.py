"""Populations of images with two sides whose true difference is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmres2net.compare.metrics import measure
from mmres2net.compare.statistics import Array, Draws
from mmres2net.evaluation.per_image import collected

Records = list[dict[str, Any]]
CLASSES = ('a', 'b', 'c')


@dataclass(frozen=True)
class Population:
    sides: tuple[Records, Records]

    @property
    def size(self) -> int:
        return len(self.sides[0])

    @property
    def difference(self) -> float:
        one = Draws(np.ones((self.size, 1)))
        values = [self.metric(side, np.arange(self.size), one)[0] for side in (0, 1)]
        return values[1] - values[0]

    def metric(self, side: int, images: Array, draws: Draws) -> Array:
        records = [self.sides[side][i] for i in images]
        return next(iter(measure(collected(records, CLASSES), draws).metrics.values()))


def record(i: int, task: str, **arrays: Any) -> dict[str, Any]:
    return {'image': f'{i}.jpg', 'score': 0.5, 'task': task, 'truth_hash': i, **arrays}


def classified(size: int = 2000) -> Population:
    """Two classifiers that are right in 70 and 75 of 100 images, often in the same ones."""
    rng = np.random.default_rng(7)
    hard, sides = rng.random(size), []
    for skill in (0.7, 0.75):
        right = hard + rng.normal(0, 0.1, size) < skill
        top = [np.array([(i + (not one)) % 3, (i + 2) % 3]) for i, one in enumerate(right)]
        kept = [{'truth': i % 3, 'top': one, 'scores': np.array([0.8, 0.1])} for i, one in enumerate(top)]
        sides.append([record(i, 'classification', **one) for i, one in enumerate(kept)])
    return Population((sides[0], sides[1]))


def segmented(size: int = 2000) -> Population:
    rng = np.random.default_rng(8)
    hard, shown, sides = rng.uniform(0.5, 0.9, size), rng.dirichlet([1, 1, 1], size), []
    for skill in (0.0, 0.04):
        records = []
        for i in range(size):
            confused = np.full((3, 3), (1 - hard[i] - skill) / 2) + np.eye(3) * (1.5 * (hard[i] + skill) - 0.5)
            pixels = np.round(400 * shown[i][:, None] * confused).astype(int).ravel()
            records.append(record(i, 'segmentation', pairs=np.flatnonzero(pixels), pixels=pixels[pixels > 0]))
        sides.append(records)
    return Population((sides[0], sides[1]))
