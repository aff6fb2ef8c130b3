"""Operations that are written for the graphs, against those of mmdet, mmcv and torch."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.ops import RoIAlign

from mmres2net.export import detector
from mmres2net.export.formats import make_pools_dynamic

BORDER = torch.tensor([120.0, 90.0, 120.0, 90.0])


def some_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * torch.tensor([100.0, 70.0])
    return torch.cat([corner, corner + torch.rand(count, 2) * 60 + 1], 1)


def test_boxes_are_decoded_and_suppressed_by_group() -> None:
    coders = pytest.importorskip('mmdet.models.task_modules.coders')
    from mmcv.ops import batched_nms

    coder = coders.DeltaXYWHBBoxCoder((0.0, 0.1, 0.0, -0.2), (0.1, 0.2, 0.3, 0.4))
    old, deltas = some_boxes(300), torch.randn(300, 4) * 8  # far enough for the limits of growth
    decoded = detector.BoxDecoder(coder)(old, deltas, BORDER)
    torch.testing.assert_close(decoded, coder.decode(old, deltas, max_shape=(90, 120)), rtol=1e-5, atol=1e-4)
    boxes, scores, groups = torch.minimum(some_boxes(400), BORDER), torch.rand(400), torch.randint(0, 5, (400,))
    kept = detector.nms_by_group(boxes, scores, groups, BORDER, 0.5)
    assert torch.equal(kept, batched_nms(boxes, scores, groups, dict(type='nms', iou_threshold=0.5))[1])
    assert len(detector.nms_by_group(boxes, scores, 0 * groups, BORDER, 0.5)) < len(kept) < 400


def test_no_boxes_are_no_error() -> None:
    none = torch.zeros(0, 4)
    layers = [RoIAlign((7, 7), 1 / stride, -1, True) for stride in (4, 8)]
    extractor = SimpleNamespace(roi_layers=layers, finest_scale=14)
    regions = detector.Regions(extractor, SimpleNamespace(with_shared_head=False))
    pooled, order = regions((torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)), none)
    assert (pooled.shape, order.shape) == ((0, 3, 7, 7), (0,))
    assert detector.nms_by_group(none, torch.zeros(0), torch.zeros(0), BORDER, 0.5).shape == (0,)


POOLS = {
    'stem': nn.MaxPool2d(3, 2, padding=1), 'sample': nn.MaxPool2d(1, 2), 'split': nn.AvgPool2d(3, 2, padding=1),
    'shortcut': nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), 'densenet': nn.AvgPool2d(2, 2),
    'another': nn.AvgPool2d(3, 1, padding=1), 'ceil': nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
}  # fmt: skip


@pytest.mark.parametrize('size', [(8, 8), (7, 9), (8, 5)])
@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
def test_pools_made_for_torch_export(pool: nn.Module, size: tuple[int, int]) -> None:
    model = nn.Sequential(pool)
    x = torch.randn(2, 3, *size) - 3  # a zero among them would be the largest
    torch.testing.assert_close(make_pools_dynamic(model)(x), model(x))
    assert model[0] is pool
