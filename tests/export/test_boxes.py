"""Arithmetic of boxes against mmdet's and mmcv's own."""

import pytest
import torch
from torchvision.ops import RoIAlign

from mmres2net.export import boxes

coders = pytest.importorskip('mmdet.models.task_modules.coders')
SIZE = (90, 120)
BORDER = torch.tensor([120.0, 90.0, 120.0, 90.0])


def some_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * torch.tensor([100.0, 70.0])
    return torch.cat([corner, corner + torch.rand(count, 2) * 60 + 1], 1)


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


def test_no_boxes_are_no_error() -> None:
    none = torch.zeros(0, 4)
    layers = [RoIAlign((7, 7), 1 / stride, -1, True) for stride in (4, 8)]
    pooled, order = boxes.pool_regions([torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)], none, layers, 14)
    assert pooled.shape == (0, 3, 7, 7)
    assert order.shape == (0,)
    assert boxes.nms_by_group(none, torch.zeros(0), torch.zeros(0), BORDER, 0.5).shape == (0,)
