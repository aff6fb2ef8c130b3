"""SaliencyMetric beside the definitions of the papers and beside PySODMetrics over whole sets."""

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import py_sod_metrics as library
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from scipy.ndimage import gaussian_filter

from mmres2net.errors import UserError
from mmres2net.saliency import SaliencyMetric
from mmres2net.saliency.metrics import grey_map, measure
from tests.reference.saliency import one_image


def sample(prediction: Any, mask: Any, name: str = 'dog.jpg', dataset: str | None = None) -> SegDataSample:
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


NAMES = ['maxF', 'meanF', 'adpF', 'wF', 'MAE', 'Sm', 'maxE', 'meanE', 'adpE', 'maxF_images']


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('kind', [object_map, noise_map])
def test_one_map_beside_the_definitions(kind: Any, seed: int) -> None:
    """The library finds the level of a pixel in floating point and cuts off, which takes some a level down."""
    grey, mask = kind(seed)
    found, expected = measure(grey, mask), one_image(grey, mask)
    for name in ('MAE', 'Sm', 'adpF'):
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name
    for name in ('precision', 'recall', 'F'):
        assert found[name].shape == (256,)
        same, above = (np.abs(found[name][1:] - values) for values in (expected[name][1:], expected[name][:-1]))
        assert np.minimum(same, above).max() < 1e-12, name
        assert (same > 1e-12).sum() <= 5, name


def whole_set(samples: Sequence[SegDataSample]) -> dict[str, float]:
    handlers = {
        'fm': library.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3),
        'p': library.PrecisionHandler(with_dynamic=True, with_adaptive=False),
        'r': library.RecallHandler(with_dynamic=True, with_adaptive=False),
    }
    f, s, e = library.FmeasureV2(handlers), library.Smeasure(), library.Emeasure()
    w, mae = library.WeightedFmeasure(), library.MAE()
    for one in samples:
        grey = np.rint(255 * one.seg_logits.data[0].double().numpy()).astype(np.uint8)
        for measure_one in (f, s, e, w, mae):
            measure_one.step(grey, 255 * one.gt_sem_seg.data[0].numpy())
    curves, em = f.get_results(), e.get_results()['em']
    p, r = curves['p']['dynamic'], curves['r']['dynamic']
    return {
        'maxF': (1.3 * p * r / (0.3 * p + r)).max(), 'meanF': curves['fm']['dynamic'].mean(),
        'adpF': curves['fm']['adaptive'], 'wF': w.get_results()['wfm'], 'MAE': mae.get_results()['mae'],
        'Sm': s.get_results()['sm'], 'maxE': em['curve'].max(), 'meanE': em['curve'].mean(), 'adpE': em['adp'],
        'maxF_images': curves['fm']['dynamic'].max(),
    }  # fmt: skip


def test_two_sets_as_the_library_measures_each() -> None:
    ours, others = samples_of(range(7), 'ECSSD'), samples_of(range(7, 12), 'HKU-IS')
    mixed = [one for pair in zip(ours, [*others, *others], strict=False) for one in pair][:10] + ours[5:]
    figures = run(mixed)
    expected = {f'ECSSD/{k}': v for k, v in whole_set(ours).items()}
    expected |= {f'HKU-IS/{k}': v for k, v in whole_set(others).items()}
    assert figures == pytest.approx(expected, abs=1e-12)
    assert list(figures) == [f'{name}/{k}' for name in ('ECSSD', 'HKU-IS') for k in NAMES]


@pytest.mark.parametrize('dataset', ['MSRA-B', None])
def test_figures_of_one_set_have_plain_names(dataset: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr('mmres2net.saliency.metrics.print_log', lambda text, logger: said.append(text))
    figures = run(samples_of(range(3), dataset))
    assert list(figures) == NAMES, "save_best='auto' follows the first"
    (table,) = said
    row = table.splitlines()[-1].split()
    assert row == [dataset or 'all', '3', *(f'{value:.3f}' for value in figures.values())]
    assert list(run(samples_of(range(2), dataset), prefix='sal')) == [f'sal/{name}' for name in NAMES]


def edge_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    grey, mask = object_map(3)
    nothing, everything = np.zeros_like(mask), np.ones_like(mask)
    corner, one = nothing.copy(), nothing.copy()
    corner[-1, -1], one[4, 5] = True, True
    line = nothing.copy()
    line[:, -1] = True
    flat = np.full(mask.shape, 77, np.uint8)
    return {
        'no object': (grey, nothing), 'all object': (grey, everything), 'corner': (grey, corner), 'line': (grey, line),
        'one pixel': (grey, one), 'flat': (flat, mask), 'black': (0 * flat, mask), 'white': (0 * flat + 255, mask),
        'right': (255 * mask.astype(np.uint8), mask), 'inverted': (255 * (~mask).astype(np.uint8), mask),
        'faint': (51 + 51 * mask.astype(np.uint8), mask),
        'black on nothing': (0 * flat, nothing), 'white on all': (0 * flat + 255, everything),
    }  # fmt: skip


@pytest.mark.parametrize('case', edge_cases())
def test_edge_cases_have_figures_and_no_warning(case: str) -> None:
    """The library alone gives NaN for the object in the corner and on the border line."""
    grey, mask = edge_cases()[case]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figures = run([sample(grey / 255, mask)])
    assert np.isfinite(list(figures.values())).all(), figures
    expected = one_image(grey, mask)
    for name in ('MAE', 'Sm', 'adpF'):
        assert figures[name] == pytest.approx(expected[name], abs=1e-12), name
    if not mask.any():
        assert figures['maxF'] == figures['wF'] == 0, 'nothing to find: no F'


def test_evaluations_do_not_mix() -> None:
    evaluator = build()
    evaluator.process(data_samples=samples_of([0, 1, 2]), data_batch=None)
    with pytest.raises(UserError, match=r'3 images.*1 of 1.*DefaultSampler'):
        evaluator.evaluate(1)
    for seeds in ([0, 1], [2, 3, 4]):
        evaluator.process(data_samples=samples_of(seeds), data_batch=None)
        assert evaluator.evaluate(len(seeds)) == run(samples_of(seeds))


MASK, HALF = [[0, 1], [1, 1]], np.full((2, 2), 0.5)
REFUSED = [
    ([[0.1, math.nan], [0, 0]], MASK, 'NaN'), ([[0.1, math.inf], [0, 0]], MASK, 'NaN'),
    ([[0.1, 3.5], [-2, 0]], MASK, r'-2 to 3\.5'), (HALF, [[0, 1, 1]], r'\(2, 2\).*\(1, 3\)'),
    (HALF, [[0, 1], [255, 1]], 'label 255'), (np.zeros((0, 2)), MASK, r'\(1, 0, 2\)'),
]  # fmt: skip


@pytest.mark.parametrize(('prediction', 'mask', 'message'), REFUSED)
def test_what_is_refused(prediction: Any, mask: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf'dog\.jpg: .*{message}'):
        run([sample(prediction, mask)])


def test_two_channels_and_no_mask_and_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    two, bare = (
        SegDataSample(metainfo={'img_path': 'cat.jpg'}, seg_logits=PixelData(data=torch.zeros(channels, 3, 3)))
        for channels in (2, 1)
    )
    with pytest.raises(UserError, match=r'cat\.jpg: .*\(2, 3, 3\)'):
        run([two])
    with pytest.raises(UserError, match=r'cat\.jpg .*annotation'):
        run([bare])
    with pytest.raises(UserError, match='no image'):
        run([])
    monkeypatch.setitem(sys.modules, 'py_sod_metrics', None)
    with pytest.raises(UserError, match='pysodmetrics'):
        SaliencyMetric()


def test_rounding() -> None:
    values = torch.tensor([[0, 0.25, 0.5, 1, 1 / 255, 0.49 / 255, 0.51 / 255, 254.4 / 255, 1.00005, -0.00005]])
    grey = grey_map(values[None], 'x')
    assert (grey.tolist(), grey.dtype) == ([[0, 64, 128, 255, 1, 0, 1, 254, 255, 0]], np.uint8)
