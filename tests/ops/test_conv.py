"""Convolutions with another backward pass: values and gradients as nn.Conv2d has them, and when they are not used."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mmres2net.ops import Conv2d, DilatedDepthwiseConv2d, conv

LAST = torch.channels_last


def twin(module: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """Return a copy of another class."""
    copied = copy.deepcopy(module)
    copied.__class__ = kind
    return copied


def results(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output and all gradients for a fixed gradient of the output."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    out = module(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).sin()
    (out * weights).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in module.parameters())]


def assert_same(ours: list[Tensor], theirs: list[Tensor], bound: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, rtol=0, atol=bound * other.abs().max().item())


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('memory_format', [LAST, torch.contiguous_format])
@pytest.mark.parametrize(
    ('kernel', 'dilation', 'padding'),
    [(1, 1, 0), (3, 1, 1), (3, 2, 2), (5, 1, 2), ((3, 1), 1, (1, 0)), ((1, 5), (1, 2), (0, 4)), (3, 1, 'same')],
)
def test_equals_torch(dtype, memory_format, kernel, dilation, padding) -> None:
    torch.manual_seed(0)
    usual = nn.Conv2d(48, 56, kernel, dilation=dilation, padding=padding).to(dtype, memory_format=memory_format)
    assert conv.fits(usual)
    ours = twin(usual, Conv2d)
    x = torch.randn(3, 48, 25, 31, dtype=dtype).to(memory_format=memory_format)
    assert type(ours(x).grad_fn).__name__ == 'SameSizeConvBackward'
    assert_same(results(ours, x), results(usual, x), 1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize('size', [(5, 7), (1, 1), (40, 2)])
def test_small_maps_are_left_to_torch(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = nn.Conv2d(48, 48, 3, padding=1).double()
    x = torch.randn(2, 48, *size, dtype=torch.float64)
    expected = results(usual, x)
    monkeypatch.setattr(conv, '_bordered', None)  # would fail
    assert_same(results(twin(usual, Conv2d), x), expected, 1e-12)


def test_gradients_are_made_only_where_wanted() -> None:
    usual = nn.Conv2d(48, 48, 3, padding=1, bias=False).double()
    ours = twin(usual, Conv2d)
    x = torch.randn(1, 48, 12, 16, dtype=torch.float64)
    ours(x).sum().backward()  # the input wants none
    usual(x).sum().backward()
    torch.testing.assert_close(ours.weight.grad, usual.weight.grad, rtol=0, atol=1e-11)
    assert ours.weight.grad.stride() == ours.weight.stride()


def test_elsewhere_it_is_the_usual_one() -> None:
    ours = twin(nn.Conv2d(48, 48, 3, padding=1), Conv2d)
    x = torch.randn(1, 48, 12, 16)
    with torch.no_grad():
        assert ours(x).grad_fn is None
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert ours(x[:, :, :2, :2]).dtype == torch.bfloat16
    assert torch.equal(torch.compile(ours, backend='eager')(x), ours(x))
    ours.weight.requires_grad_(False)
    assert ours(x.requires_grad_()).grad_fn.name() == 'ConvolutionBackward0'


@pytest.mark.parametrize(
    'module',
    [
        nn.Conv2d(48, 48, 3, padding=1, stride=2),
        nn.Conv2d(48, 48, 3),
        nn.Conv2d(48, 48, 2, padding=1),
        nn.Conv2d(48, 48, 3, padding=1, groups=2),
        nn.Conv2d(48, 48, 3, padding=1, padding_mode='reflect'),
        nn.Conv2d(48, 47, 3, padding=1),
        nn.Conv2d(48, 48, 3, padding='valid'),
        nn.ConvTranspose2d(48, 48, 3, padding=1),
        Conv2d(48, 48, 3, padding=1),
    ],
)
def test_what_does_not_fit(module: nn.Module) -> None:
    assert not conv.fits(module)


@pytest.mark.parametrize('dilation', [2, (6, 1)])
@pytest.mark.parametrize('memory_format', [LAST, torch.contiguous_format])
def test_dilated_depthwise_equals_torch(dilation, memory_format) -> None:
    usual = nn.Conv2d(8, 8, 3, dilation=dilation, padding=dilation, groups=8).double().to(memory_format=memory_format)
    assert conv.is_dilated_depthwise(usual)
    ours = twin(usual, DilatedDepthwiseConv2d)
    x = torch.randn(2, 8, 14, 15, dtype=torch.float64).to(memory_format=memory_format)
    assert_same(results(ours, x), results(usual, x), 1e-13)
    assert ours(x).is_contiguous(memory_format=memory_format)


def test_dilated_depthwise_computes_in_the_usual_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the time is decided by the strides that the convolution itself sees."""
    ours = twin(nn.Conv2d(8, 8, 3, dilation=2, padding=2, groups=8).to(memory_format=LAST), DilatedDepthwiseConv2d)
    seen = []
    inner = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, 'conv2d', lambda x, w, *rest: seen.append((x, w)) or inner(x, w, *rest))
    ours(torch.randn(1, 8, 6, 7).to(memory_format=LAST))
    ((x, weight),) = seen
    assert x.stride() == (336, 42, 7, 1)
    assert weight.stride() == (9, 9, 3, 1)


@pytest.mark.parametrize(
    'module', [nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3, groups=8, dilation=2), nn.Conv2d(8, 8, 3, dilation=2)]
)
def test_what_is_no_dilated_depthwise(module: nn.Module) -> None:
    assert not conv.is_dilated_depthwise(module)
