"""mmcv's operators on channels_last tensors: the numbers that contiguous tensors give, forward and backward."""

from collections.abc import Callable
from typing import Any

import mmcv._ext
import mmcv.ops
import pytest
import torch
from torch import Tensor

from mmres2net.ops import guard_mmcv_operators

LAST = torch.channels_last
ROIS = torch.tensor([[0, 1.3, 2.1, 29.7, 25.2], [1, 3.0, 0.5, 30.1, 21.0]])
ROTATED = torch.tensor([[0, 15.0, 12.0, 10.0, 8.0, 0.5], [1, 9.0, 9.0, 12.0, 6.0, -0.3]])


def features(channels: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(2, channels, 13, 17, generator=torch.Generator().manual_seed(seed))


def deform() -> Callable[[Tensor], Tensor]:
    layer = mmcv.ops.DeformConv2d(8, 6, 3, padding=1)
    torch.nn.init.normal_(layer.weight)
    offsets = features(18, seed=2)
    last = offsets.contiguous(memory_format=LAST)
    return lambda x: layer(x, last if x.is_contiguous(memory_format=LAST) else offsets)


def modulated() -> Callable[[Tensor], Tensor]:
    layer = mmcv.ops.ModulatedDeformConv2dPack(8, 6, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight)
    layer.conv_offset.to(memory_format=LAST)  # its output is channels_last for both inputs
    return layer


OPERATORS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    'RoIAlign': lambda: lambda x: mmcv.ops.RoIAlign(7, 0.25)(x, ROIS),
    'RoIAlign, max': lambda: lambda x: mmcv.ops.RoIAlign(7, 0.25, pool_mode='max')(x, ROIS),
    'roi_align': lambda: lambda x: mmcv.ops.roi_align(x, ROIS, (3, 5), 0.5, 2, 'avg', False),
    'RoIAlignRotated': lambda: lambda x: mmcv.ops.RoIAlignRotated(7, 0.5, 2)(x, ROTATED),
    'RoIPool': lambda: lambda x: mmcv.ops.RoIPool(7, 0.25)(x, ROIS), 'DeformConv2d': deform,
    'ModulatedDeformConv2dPack': modulated, 'PSAMask': lambda: lambda x: mmcv.ops.PSAMask('collect', (2, 4))(x),
    'rotated_feature_align': lambda: lambda x: mmcv.ops.rotated_feature_align(x, features(5, 2).permute(0, 2, 3, 1)),
}  # fmt: skip


# mmcv compiles no RoIPool for CPUs; mmres2net provides no operators for rotated boxes, PSA masks and maxima.
REPLACED = 'mmres2net' in str(mmcv._ext.__spec__.origin)
ABSENT = {'RoIAlignRotated', 'rotated_feature_align', 'PSAMask', 'RoIAlign, max'} if REPLACED else {'RoIPool'}


@pytest.mark.parametrize('name', sorted(OPERATORS.keys() - ABSENT))
def test_memory_format_does_not_matter(name: str) -> None:
    guard_mmcv_operators()
    operator = OPERATORS[name]()
    results = []
    for memory_format in (torch.contiguous_format, LAST):
        x = features(8).contiguous(memory_format=memory_format).requires_grad_()
        out = operator(x)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        weight = weight.contiguous(memory_format=memory_format) if out.dim() == 4 else weight
        results.append((out.detach(), *torch.autograd.grad(out, x, weight)))
    assert results[0][0].abs().max() > 0
    for contiguous, last in zip(*results, strict=True):
        torch.testing.assert_close(last, contiguous, rtol=0, atol=1e-5)


def test_outputs_that_are_not_contiguous_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def fill(x: Tensor, *, output: Tensor) -> None:
        seen.append(x.is_contiguous() and output.is_contiguous())
        output.copy_(x * 2)

    monkeypatch.setattr(mmcv._ext, 'fill_for_test', fill, raising=False)
    guard_mmcv_operators()
    x = features().contiguous(memory_format=LAST)
    kept, output = x.clone(), torch.zeros_like(x)
    extension: Any = mmcv._ext
    extension.fill_for_test(x, output=output)
    assert seen == [True]
    assert torch.equal(x, kept)
    assert torch.equal(output, x * 2)
    guarded = extension.fill_for_test
    guard_mmcv_operators()
    assert extension.fill_for_test is guarded
