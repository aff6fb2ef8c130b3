"""RoIAlign against mmcv's and torchvision's kernels: values, gradients, and what each does at the edges."""

import copy
import pickle

import mmcv.ops
import pytest
import torch
import torchvision.ops
from torch import Tensor

from mmres2net.ops import RoIAlign
from mmres2net.ops.roi_align import bin_matrix

ALIGNED = pytest.mark.parametrize('aligned', [True, False])
SCALE = 0.25


def features(images: int = 3, channels: int = 5, height: int = 13, width: int = 19, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, height, width, generator=generator, dtype=torch.float64)


def regions(count: int = 40, images: int = 3, seed: int = 1) -> Tensor:
    """Regions of all sizes in 76 x 52 pixels and around them, in and out of the image, some of no size."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, images, (count, 1), generator=generator).double()
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([120, 90]) - 30
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 2 * 110
    size[:4] = 0
    corner[4:7] = torch.tensor([[-200.0, -200.0], [300.0, 10.0], [10.0, 300.0]])
    return torch.cat([index, corner, corner + size], 1)


def assert_equal(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...], atol: float = 1e-12) -> None:
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=atol)


def run(layer: torch.nn.Module, x: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(x, rois)
    generator = torch.Generator().manual_seed(2)
    (grad,) = torch.autograd.grad(out, x, torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out))
    return out.detach(), grad


@ALIGNED
@pytest.mark.parametrize('ratio', [0, 1, 2, 3])
@pytest.mark.parametrize('size', [(7, 7), (3, 5), (14, 14), (1, 1)])
def test_equals_mmcv_and_torchvision(aligned: bool, ratio: int, size: tuple[int, int]) -> None:
    x, rois = features(), regions()
    ours = run(RoIAlign(size, SCALE, ratio, aligned=aligned), x, rois)
    assert_equal(ours, run(mmcv.ops.RoIAlign(size, SCALE, ratio, aligned=aligned), x, rois))
    assert_equal(ours, run(lambda f, r: torchvision.ops.roi_align(f, r, size, SCALE, ratio, aligned), x, rois))
    assert ours[0].abs().max() > 0.5


@pytest.mark.parametrize(('extra', 'samples'), [(1e-10, 2), (1e-5, 3)])
def test_samples_are_counted_in_single_precision(extra: float, samples: int) -> None:
    """14 pixels and a little in 7 bins: 2 samples a bin, or 3 where single precision sees the little."""
    x, rois = features(1, 2, 30, 30), torch.tensor([[0, 2, 2, 16 + extra, 16 + extra]], dtype=torch.float64)
    ours = run(RoIAlign(7, 1.0), x, rois)
    wanted = run(lambda f, r: torchvision.ops.roi_align(f, r, 7, 1.0, samples, True), x, rois)
    assert_equal(ours[:1], wanted[:1])


@ALIGNED
def test_equals_mmcv_in_single_precision(aligned: bool) -> None:
    x, rois = features(channels=64).float(), regions(200).float()
    ours = run(RoIAlign(7, SCALE, aligned=aligned), x, rois)
    mmcvs = run(mmcv.ops.RoIAlign(7, SCALE, aligned=aligned), x, rois)
    for mine, theirs in zip(ours, mmcvs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0, atol=3e-6 * theirs.abs().max().item())


@pytest.mark.parametrize('kind', ['channels_last', 'sliced', 'transposed', 'expanded'])
def test_any_memory_format(kind: str) -> None:
    x = features()
    y = {
        'channels_last': lambda: x.to(memory_format=torch.channels_last),
        'sliced': lambda: features(6, 10)[::2, ::2],
        'transposed': lambda: x.transpose(2, 3).contiguous().transpose(2, 3),
        'expanded': lambda: x[:1].expand(3, -1, -1, -1),
    }[kind]()
    layer, rois = RoIAlign(7, SCALE), regions()
    assert_equal(run(layer, y, rois), run(mmcv.ops.RoIAlign(7, SCALE), y.contiguous(), rois))
    assert layer(y, rois).is_contiguous()


def test_regions_get_no_gradient_and_stay_as_they_are() -> None:
    rois = regions().requires_grad_()
    before = rois.detach().clone()
    RoIAlign(7, SCALE)(features().requires_grad_(), rois).sum().backward()
    assert rois.grad is None
    assert torch.equal(rois, before)


def test_no_regions() -> None:
    out, grad = run(RoIAlign((2, 3), SCALE), features(), torch.empty(0, 5))
    assert out.shape == (0, 5, 2, 3)
    assert torch.equal(grad, torch.zeros_like(features()))


def test_half_types_are_pooled_in_single_precision() -> None:
    x, rois = features().bfloat16(), regions().float()
    out = RoIAlign(7, SCALE)(x, rois)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, RoIAlign(7, SCALE)(x.float(), rois).bfloat16())


WRONG_REGIONS = [
    [0, float('nan'), 0, 4, 4], [0, 0, 0, float('inf'), 4],
    [3, 0, 0, 4, 4], [-1, 0, 0, 4, 4],  # there are three images
    [0, 9, 0, 4, 4],  # right before left
    [0, 0, 9, 4],
]  # fmt: skip


@pytest.mark.parametrize('row', WRONG_REGIONS)
def test_wrong_regions_and_arguments(row: list[float]) -> None:
    with pytest.raises(ValueError, match='rois'):
        RoIAlign(7, SCALE)(features(), torch.tensor([row]))
    for size, ratio in ((0, 0), ((7, -1), 0), (7, -1)):
        with pytest.raises(ValueError, match=f'sampling_ratio={ratio}'):
            RoIAlign(size, sampling_ratio=ratio)


def test_regions_the_wrong_way_round_are_a_pixel_without_alignment() -> None:
    rois = torch.tensor([[0, 9, 9, 4, 2]], dtype=torch.float64)
    layers = RoIAlign(3, SCALE, aligned=False), mmcv.ops.RoIAlign(3, SCALE, aligned=False)
    assert_equal(*(run(layer, features(), rois) for layer in layers))


def test_portions_of_regions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rois = features(), regions()
    whole = run(RoIAlign(7, SCALE), x, rois)
    parts = []
    monkeypatch.setattr('mmres2net.ops.roi_align.MAX_ENTRIES', 1000)
    counted = lambda r, *a, **k: parts.append(len(r)) or bin_matrix(r, *a, **k)  # noqa: E731
    monkeypatch.setattr('mmres2net.ops.roi_align.bin_matrix', counted)
    cut = run(RoIAlign(7, SCALE), x, rois)
    assert len(parts) > 5
    assert sum(parts) == len(rois)
    assert_equal(cut, whole, 1e-13)


def test_layer_is_a_drop_in() -> None:
    ours, theirs = RoIAlign(7, SCALE, 2, aligned=False), mmcv.ops.RoIAlign(7, SCALE, 2, aligned=False)
    for name in ('output_size', 'spatial_scale', 'sampling_ratio', 'aligned', 'pool_mode', 'use_torchvision'):
        assert getattr(ours, name) == getattr(theirs, name)
    assert not ours.state_dict()
    x, rois = features(), regions()
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x, rois), ours(x, rois))


def test_compiled_exported_and_traced_graphs_take_other_regions() -> None:
    x, rois, others = features().float(), regions().float(), regions(40, seed=5).float()
    layer = RoIAlign(7, SCALE)

    class Twice(torch.nn.Module):
        def forward(self, x: Tensor, rois: Tensor) -> Tensor:
            return layer(x, rois) * 2

    graphs = [
        torch.compile(Twice(), backend='aot_eager', fullgraph=True),
        torch.export.export(Twice(), (x, rois)).module(),
        torch.jit.trace(Twice(), (x, rois), check_trace=False),
    ]
    for graph in graphs:
        for boxes in (rois, others):
            torch.testing.assert_close(graph(x, boxes), layer(x, boxes) * 2, rtol=0, atol=1e-5)
