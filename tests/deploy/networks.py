"""Small networks for the tests of this folder, and the comparison of their features."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmres2net.deploy import use_fused_blocks
from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.compare import random_network

SMALL: dict[str, Any] = dict(depths=(1, 2, 2), base_width=10, scales=4)
TOLERANCE = 1e-5  # of a feature's largest value
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, **options: Any) -> nn.Module:
    options = {**SMALL, **options} if 'arch' not in options else options
    kind = Res2NetDLA if 'arch' in options and ARCHS[options['arch']].family == 'dla' else Res2Net
    return random_network(lambda: kind(**options), seed).float().eval()


def fused_pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    plain = network(**options)
    fused = copy.deepcopy(plain)
    assert use_fused_blocks(fused) > 0
    return plain, fused


def features(model: nn.Module, x: Tensor = IMAGE) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model(x)


def assert_close(got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


def assert_same(model: nn.Module, plain: nn.Module, x: Tensor = IMAGE, tolerance: float = TOLERANCE) -> None:
    for got, wanted in zip(features(model, x), features(plain, x), strict=True):
        assert_close(got, wanted, tolerance)
