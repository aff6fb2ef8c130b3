"""Arithmetic of boxes against mmdet's and mmcv's own."""

import pytest
import torch
from torchvision.ops import RoIAlign

from mmres2net.export import boxes

coders = pytest.importorskip('mmdet.models.task_modules.coders')
extractors = pytest.importorskip('mmdet.models.roi_heads.roi_extractors')
generators = pytest.importorskip('mmdet.models.task_modules.prior_generators')
SIZE = (90, 120)
BORDER = torch.tensor([120.0, 90.0, 120.0, 90.0])


def some_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * torch.tensor([100.0, 70.0])
    return torch.cat([corner, corner + torch.rand(count, 2) * 60 + 1], 1)


def test_anchors() -> None:
    generator = generators.AnchorGenerator(strides=[8], ratios=[0.5, 1.0, 2.0], scales=[4, 8])
    expected = generator.grid_priors([(5, 7)], device='cpu')[0]
    assert torch.equal(boxes.make_anchors(generator.base_anchors[0], 5, 7, (8, 8)), expected)


def test_decoding_and_clipping() -> None:
    means, stds = (0.0, 0.1, 0.0, -0.2), (0.1, 0.2, 0.3, 0.4)
    old, deltas = some_boxes(300), torch.randn(300, 4) * 8  # far enough for the limits of growth
    expected = coders.DeltaXYWHBBoxCoder(means, stds).decode(old, deltas, max_shape=SIZE)
    got = boxes.clip_boxes(boxes.decode_boxes(old, deltas, torch.tensor(means), torch.tensor(stds)), BORDER)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_suppression_is_by_group() -> None:
    from mmcv.ops import batched_nms

    old = boxes.clip_boxes(some_boxes(400), BORDER)
    scores, groups = torch.rand(400), torch.randint(0, 5, (400,))
    expected = batched_nms(old, scores, groups, dict(type='nms', iou_threshold=0.5))[1]
    kept = boxes.nms_by_group(old, scores, groups, BORDER, 0.5)
    assert torch.equal(kept, expected)
    assert 5 < len(kept) < 400
    together = boxes.nms_by_group(old, scores, torch.zeros_like(groups), BORDER, 0.5)
    assert len(together) < len(kept)


@pytest.mark.parametrize(('aligned', 'samples'), [(True, 0), (False, 2)])
def test_regions_are_pooled_from_their_level(aligned: bool, samples: int) -> None:
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=samples, aligned=aligned)
    extractor = extractors.SingleRoIExtractor(layer, 3, [4, 8, 16], finest_scale=14)
    features = [torch.randn(1, 3, 24 // 2**i, 32 // 2**i) for i in range(3)]
    old = some_boxes(50)
    expected = extractor(features, torch.cat([torch.zeros(50, 1), old], 1))
    layers = [RoIAlign((7, 7), 1 / stride, samples or -1, aligned) for stride in (4, 8, 16)]
    pooled, order = boxes.pool_regions(features, old, layers, 14)
    assert len(boxes.pyramid_levels(old, 14, 3).unique()) == 3
    assert not torch.equal(order, torch.arange(50))
    torch.testing.assert_close(pooled, expected[order], rtol=1e-5, atol=1e-5)


def test_no_boxes_are_no_error() -> None:
    none = torch.zeros(0, 4)
    layers = [RoIAlign((7, 7), 1 / stride, -1, True) for stride in (4, 8)]
    pooled, order = boxes.pool_regions([torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)], none, layers, 14)
    assert pooled.shape == (0, 3, 7, 7)
    assert order.shape == (0,)
    assert boxes.nms_by_group(none, torch.zeros(0), torch.zeros(0), BORDER, 0.5).shape == (0,)
