"""Saliency maps as mmseg's models return them, and the metrics of some."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from scipy.ndimage import gaussian_filter

from mmres2net.saliency import SaliencyMetric


def sample(prediction: Any, mask: Any, name: str = 'dog.jpg', dataset: str | None = None) -> SegDataSample:
    """As mmseg returns it: (1, H, W) of probabilities, and of labels."""
    one = SegDataSample(metainfo={'img_path': name, **({'dataset_name': dataset} if dataset else {})})
    one.seg_logits = PixelData(data=torch.as_tensor(np.asarray(prediction), dtype=torch.float32)[None])
    one.gt_sem_seg = PixelData(data=torch.as_tensor(np.asarray(mask), dtype=torch.uint8)[None])
    return one


def object_map(seed: int, height: int = 21, width: int = 26) -> tuple[np.ndarray, np.ndarray]:
    """A blurred and noisy map of an ellipse as uint8, and the ellipse; its centre of mass lies on no pixel border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    while True:
        cy, cx = rng.uniform(0.2, 0.8, 2) * (height, width)
        ry, rx = rng.uniform(0.1, 0.4, 2) * (height, width)
        mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        middle = np.argwhere(mask).mean(0) if mask.any() else np.full(2, 0.5)
        if np.abs(middle % 1 - 0.5).min() > 1e-6:
            break
    values = gaussian_filter(mask.astype(float), rng.uniform(0.5, 3)) + rng.normal(0, rng.uniform(0, 0.2), mask.shape)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8), mask


def noise_map(seed: int, height: int = 21, width: int = 26) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(20, 200, (height, width), dtype=np.uint8), rng.random((height, width)) < 0.3


def samples_of(seeds: Sequence[int], dataset: str | None = None) -> list[SegDataSample]:
    """Of different sizes; each data set has other maps under the same names."""
    place = dataset or 'own'
    maps = [object_map(seed + 100 * len(place), 15 + seed, 20 + seed % 3) for seed in seeds]
    return [
        sample(grey / 255, mask, f'{place}/{seed}.jpg', dataset) for seed, (grey, mask) in zip(seeds, maps, strict=True)
    ]


def build(**options: Any) -> Evaluator:
    evaluator = Evaluator({'type': 'mmres2net.SaliencyMetric', **options})
    assert type(evaluator.metrics[0]) is SaliencyMetric
    return evaluator


def run(samples: Sequence[SegDataSample], **options: Any) -> dict[str, float]:
    evaluator = build(**options)
    for one in samples:
        evaluator.process(data_samples=[one], data_batch=None)
    return evaluator.evaluate(len(samples))
