"""Pools made for torch.export do what they stand for."""

import pytest
import torch
from torch import nn

from mmres2net.export.formats import make_pools_dynamic

POOLS = {
    'stem': nn.MaxPool2d(3, 2, padding=1),
    'sample': nn.MaxPool2d(1, 2),
    'split': nn.AvgPool2d(3, 2, padding=1),
    'shortcut': nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    'densenet': nn.AvgPool2d(2, 2),
    'another': nn.AvgPool2d(3, 1, padding=1),
}


@pytest.mark.parametrize('size', [(8, 8), (7, 9), (8, 5)])
@pytest.mark.parametrize('pool', POOLS.values(), ids=POOLS)
def test_pools(pool: nn.Module, size: tuple[int, int]) -> None:
    model = nn.Sequential(pool)
    x = torch.randn(2, 3, *size) - 3  # a zero among them would be the largest
    torch.testing.assert_close(make_pools_dynamic(model)(x), model(x))
    assert model[0] is pool
