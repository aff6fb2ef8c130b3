"""SaliencyMetric beside the papers' definitions and beside PySODMetrics over whole sets; what it holds and refuses."""

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import py_sod_metrics as library
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmres2net.errors import UserError
from mmres2net.saliency import SaliencyMetric
from mmres2net.saliency.measures import measure
from tests.reference.saliency import one_image
from tests.saliency.samples import build, noise_map, object_map, run, sample, samples_of

NAMES = ['maxF', 'meanF', 'adpF', 'wF', 'MAE', 'Sm', 'maxE', 'meanE', 'adpE', 'maxF_images']


@pytest.mark.parametrize('stretch', [True, False])
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('kind', [object_map, noise_map])
def test_one_map_beside_the_definitions(kind: Any, seed: int, stretch: bool) -> None:
    """The library finds the level of a pixel in floating point and cuts off, which takes some a level down."""
    grey, mask = kind(seed)
    found, expected = measure(grey, mask, stretch=stretch), one_image(grey, mask, stretch)
    for name in ('MAE', 'Sm', 'adpF'):
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name
    for name in ('precision', 'recall', 'F'):
        assert found[name].shape == (256,)
        same, above = (np.abs(found[name][1:] - values) for values in (expected[name][1:], expected[name][:-1]))
        assert np.minimum(same, above).max() < 1e-12, name
        assert (same > 1e-12).sum() <= 5, name


def whole_set(samples: Sequence[SegDataSample]) -> dict[str, float]:
    """The library over all images in one go, and the pooled F from its averaged curves."""
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


def test_which_f_is_which() -> None:
    """One map is right; the other finds a quarter of its object. Pooled: precision 1, recall 5/8. By image: 1 and
    1.3 / 4 / (0.3 + 1 / 4).
    """
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    part = np.zeros((4, 4))
    part[0, 0] = 1
    figures = run([sample(mask, mask), sample(part, mask)])
    assert figures['maxF'] == pytest.approx(1.3 * 0.625 / (0.3 + 0.625), abs=1e-12)
    assert figures['maxF_images'] == pytest.approx((1 + 1.3 / 4 / (0.3 + 1 / 4)) / 2, abs=1e-12)
    # At the lowest threshold, one of 256, all pixels are found: a quarter of them rightly.
    everything = 1.3 / 4 / (0.3 / 4 + 1)
    assert figures['meanF'] == pytest.approx((255 * figures['maxF_images'] + everything) / 256, abs=1e-12)
    assert figures['adpF'] == pytest.approx(figures['maxF_images'], abs=1e-12)
    assert figures['MAE'] == pytest.approx(3 / 16 / 2, abs=1e-12)


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
@pytest.mark.parametrize('stretch', [True, False])
def test_edge_cases_have_figures_and_no_warning(case: str, stretch: bool) -> None:
    """The library alone gives NaN for the object in the corner and on the border line."""
    grey, mask = edge_cases()[case]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figures = run([sample(grey / 255, mask)], stretch=stretch)
    assert np.isfinite(list(figures.values())).all(), figures
    expected = one_image(grey, mask, stretch)
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
    with pytest.raises(UserError, match=r'cat\.jpg .*format_only=True'):
        run([bare])
    with pytest.raises(UserError, match='no image'):
        run([])
    monkeypatch.setitem(sys.modules, 'py_sod_metrics', None)
    with pytest.raises(UserError, match='pip install pysodmetrics'):
        SaliencyMetric()
    assert run([bare], format_only=True) == {}
