"""mmcv.ops on torchvision's operators against loops in double precision, numerical gradients and compiled operators."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import pytest
import torch
from mmcv import ops
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from tests.mmcv_ops import reference
from tests.mmcv_ops.conftest import Use

F64 = torch.float64


@pytest.fixture(autouse=True)
def _provided(use: Use, provided: ModuleType) -> None:
    use(provided)


def boxes_and_scores(count: int = 60, size: float = 40) -> tuple[Tensor, Tensor]:
    """Return boxes that overlap a lot, the last ones empty or turned round, with different scores."""
    corner, extent = torch.rand(count, 2) * 30, torch.rand(count, 2) * size
    extent[-3:] = torch.tensor([[0.0, 5.0], [0.0, 0.0], [-4.0, 3.0]])
    return torch.cat((corner, corner + extent), 1), torch.randperm(count) / count + 0.01


def regions(images: int = 2) -> Tensor:
    """Return regions inside, across the border, outside, empty and turned round, on several images."""
    rois = torch.tensor(
        [[0, 1, 2, 11, 9], [1, -6, -3, 8, 30], [0, 40, 40, 60, 60], [1, 5, 5, 5, 5], [0, 3.3, 4.2, 3.9, 9.7]], dtype=F64
    )
    rois[:, 0] %= images
    return rois


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 1.0])
def test_nms(offset: int, threshold: float) -> None:
    boxes, scores = boxes_and_scores()
    dets, kept = ops.nms(boxes, scores, threshold, offset)
    assert kept.tolist() == reference.nms(boxes.double(), scores, threshold, offset)
    assert torch.equal(dets, torch.cat((boxes[kept], scores[kept, None]), 1))


def test_suppression_of_no_box_of_one_and_of_an_overlap_that_is_the_threshold_itself() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 1], [0, 0, 10, 5]])  # overlaps 0.1 and 0.5
    for threshold, kept in ((0.1, [0, 1]), (0.5, [0, 1, 2]), (0.49, [0, 1])):
        assert ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), threshold)[1].tolist() == kept
    none, one = torch.zeros(0, 4), torch.tensor([[1.0, 2, 3, 4]])
    assert ops.nms(none, none[:, 0], 0.5)[0].shape == (0, 5)
    assert ops.soft_nms(none, none[:, 0])[0].shape == (0, 5)
    assert ops.nms(one, torch.ones(1), 0.5)[0].tolist() == [[1, 2, 3, 4, 1]]
    assert ops.soft_nms(one, torch.full((1,), 1e-9))[1].tolist() == [0]  # the first stays whatever its score


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method: str) -> None:
    boxes, scores = boxes_and_scores()
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    indices, lowered = zip(*reference.soft_nms(boxes.double(), scores, method, 0.3, 0.5, 0.05), strict=True)
    assert kept.tolist() == list(indices)
    torch.testing.assert_close(dets[:, 4], torch.tensor(lowered))
    assert torch.equal(dets[:, :4], boxes[kept])


@pytest.mark.parametrize(('ratio', 'aligned'), [(0, True), (2, True), (0, False), (3, False)])
def test_roi_align(ratio: int, aligned: bool) -> None:
    features, rois = torch.randn(2, 3, 10, 12, dtype=F64), regions()
    wanted = reference.roi_align(features, rois, (2, 3), 0.5, ratio, aligned)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = features.contiguous(memory_format=memory_format)
        torch.testing.assert_close(ops.roi_align(x, rois, (2, 3), 0.5, ratio, 'avg', aligned), wanted)
    features.requires_grad_()
    assert gradcheck(lambda x: ops.roi_align(x, rois, (2, 3), 0.5, ratio, 'avg', aligned), (features,), atol=1e-4)


def test_half_precision_features_are_pooled_at_exact_places() -> None:
    features, rois = torch.randn(1, 2, 8, 300).bfloat16(), torch.tensor([[0, 251.3, 2, 257.1, 6]])
    wanted = reference.roi_align(features.double(), rois.double(), (2, 2), 1.0, 2, True)
    pooled = ops.roi_align(features, rois, 2, 1.0, 2, 'avg', True)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.double(), wanted, atol=0.02, rtol=0.01)


def test_roi_pool() -> None:
    features, rois = torch.randn(2, 3, 10, 12, dtype=F64), regions()
    torch.testing.assert_close(ops.roi_pool(features, rois, 3, 0.5), reference.roi_pool(features, rois, 3, 0.5))
    assert gradcheck(lambda x: ops.roi_pool(x, rois, 3, 0.5), (features.requires_grad_(),))


@pytest.mark.parametrize('pool', [ops.RoIAlign(3), ops.RoIPool(3)])
def test_no_region_gives_an_empty_result_and_no_gradient(pool: Callable[[Tensor, Tensor], Tensor]) -> None:
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    pooled = pool(features, torch.zeros(0, 5))
    assert pooled.shape == (0, 2, 3, 3)
    pooled.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


def deform_inputs(groups: int, deform_groups: int, stride: int, dilation: int) -> tuple[Tensor, ...]:
    """Return image, offset, mask, weight and bias for 3x2 kernels and a padding of 1."""
    image, weight = torch.randn(2, 4, 7, 8, dtype=F64), torch.randn(6, 4 // groups, 3, 2, dtype=F64)
    size = functional.conv2d(image, weight, None, stride, 1, dilation, groups).shape[2:]
    offset = torch.randn(2, deform_groups * 12, *size, dtype=F64) * 2
    return image, offset, torch.rand(2, deform_groups * 6, *size, dtype=F64), weight, torch.randn(6, dtype=F64)


LAYOUTS = [(1, 1, 1, 1), (2, 1, 2, 1), (1, 2, 1, 2), (2, 4, 2, 1)]  # groups, deform groups, stride, dilation


@pytest.mark.parametrize(('groups', 'parts', 'stride', 'dilation'), LAYOUTS)
def test_deformable_convolutions(groups: int, parts: int, stride: int, dilation: int) -> None:
    *inputs, bias = deform_inputs(groups, parts, stride, dilation)
    image, offset, mask, weight = inputs
    sizes = (stride, 1, dilation, groups, parts)
    plain, wanted = (reference.deform_conv(image, offset, m, weight, *sizes) for m in (None, mask))
    torch.testing.assert_close(ops.deform_conv2d(image, offset, weight, *sizes), plain)
    torch.testing.assert_close(ops.modulated_deform_conv2d(*inputs, None, *sizes), wanted)
    torch.testing.assert_close(ops.modulated_deform_conv2d(*inputs, bias, *sizes), wanted + bias[:, None, None])
    for leaf in (*inputs, bias):
        leaf.requires_grad_()
    frozen = (image.detach(), offset.detach(), weight)  # only the second of mmcv's two backward functions
    for leaves in ((image, offset, weight), frozen):
        assert gradcheck(lambda *x: ops.deform_conv2d(*x, *sizes), leaves, nondet_tol=1e-12, fast_mode=True)
    for leaves in (inputs, [*inputs, bias]):
        run = lambda *x: ops.modulated_deform_conv2d(*x, *[None] * (5 - len(x)), *sizes)  # noqa: E731
        assert gradcheck(run, leaves, nondet_tol=1e-12, fast_mode=True)


def test_deform_conv_twice_in_one_graph_keeps_the_gradients_apart() -> None:
    image, offset, _, weight, _ = deform_inputs(1, 1, 1, 1)
    weight.requires_grad_()
    image.requires_grad_()
    out = ops.deform_conv2d(image, offset, weight, 1, 1)
    first = torch.autograd.grad(out, weight, torch.ones_like(out), retain_graph=True)[0]
    second = torch.autograd.grad(out, (image, weight), 2 * torch.ones_like(out))[1]
    torch.testing.assert_close(second, 2 * first)


def test_multi_scale_deformable_attention() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = [(3, 5), (2, 2)]
    value = torch.randn(2, 19, 2, 3, dtype=F64, requires_grad=True)
    places = (torch.rand(2, 4, 2, 2, 3, 2, dtype=F64) * 1.4 - 0.2).requires_grad_()
    weights = torch.rand(2, 4, 2, 2, 3, dtype=F64, requires_grad=True)

    def attend(value: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        starts = torch.tensor([0, 15])
        return MultiScaleDeformableAttnFunction.apply(value, torch.tensor(shapes), starts, places, weights, 64)

    wanted = reference.deformable_attention(value.detach(), shapes, places.detach(), weights.detach())
    torch.testing.assert_close(attend(value, places, weights), wanted)
    assert gradcheck(attend, (value, places, weights), fast_mode=True)


def focal_reference(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    positive = functional.one_hot(target, logits.shape[1] + 1)[:, :-1].double()
    right = (logits.sigmoid() - (1 - positive)).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, positive, reduction='none')
    return entropy * (1 - right) ** gamma * (alpha * positive + (1 - alpha) * (1 - positive))


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.3), (1.5, 0.9)])
def test_sigmoid_focal_loss(gamma: float, alpha: float) -> None:
    logits, target = torch.randn(6, 4, dtype=F64, requires_grad=True), torch.tensor([0, 3, 4, 1, 4, 2])  # 4: background
    loss = ops.sigmoid_focal_loss(logits, target, gamma, alpha, None, 'none')
    torch.testing.assert_close(loss, focal_reference(logits, target, gamma, alpha))
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, gamma, alpha, None, 'mean'), (logits,))
    weight, known = torch.rand(4, dtype=F64), target % 4
    weighted = ops.sigmoid_focal_loss(logits, known, gamma, alpha, weight, 'none')
    torch.testing.assert_close(weighted, focal_reference(logits, known, gamma, alpha) * weight[known, None])


def test_sigmoid_focal_loss_of_large_logits_is_finite_and_right() -> None:
    logits = torch.tensor([[120.0, -120.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'none')
    loss.sum().backward()
    assert loss.tolist() == [[0.75 * 120, 0.25 * 120]]
    assert logits.grad.tolist() == [[0.75, -0.25]]


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in inputs]
    out = function(*leaves)
    weights = torch.arange(out.numel(), device=out.device).view_as(out).cos()
    return [out, *torch.autograd.grad((out * weights).sum(), leaves)]


def runs(device: str = 'cpu', dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, Callable[..., list[Tensor]]]]:
    """Yield every operator that mmcv compiles for CPUs, by name, as a function without arguments."""
    to = {'device': device, 'dtype': dtype}
    boxes, scores = (x.to(device) for x in boxes_and_scores(200))
    boxes[-2, 2:] += 2  # mmcv's overlap of two empty boxes is not a number
    for offset in (0, 1):
        yield f'nms {offset}', partial(ops.nms, boxes, scores, 0.4, offset)
        for method in ('naive', 'linear', 'gaussian'):
            yield f'soft_nms {method} {offset}', partial(ops.soft_nms, boxes, scores, 0.3, 0.5, 0.02, method, offset)
    features = torch.randn(2, 3, 20, 24).to(**to)
    rois = torch.cat((regions().float(), torch.tensor([[1, 2, 3, 20, 30]]))).to(**to)
    for ratio, aligned in itertools.product((0, 2), (True, False)):
        sizes = (7, 0.5, ratio, 'avg', aligned)
        yield f'roi_align {sizes}', lambda s=sizes: with_gradients(lambda x: ops.roi_align(x, rois, *s), features)
    for groups, parts, stride, dilation in LAYOUTS:
        tensors = [tensor.to(**to) for tensor in deform_inputs(groups, parts, stride, dilation)]
        image, offset, _, weight, _ = tensors
        sizes = (stride, 1, dilation, groups, parts)
        plain, modulated = (
            lambda *x, s=sizes, f=function: f(*x, *s) for function in (ops.deform_conv2d, ops.modulated_deform_conv2d)
        )
        yield f'deform_conv {sizes}', partial(with_gradients, plain, image, offset, weight)
        yield f'modulated {sizes}', partial(with_gradients, modulated, *tensors)


def test_as_compiled(use: Use, provided: ModuleType, compiled: ModuleType) -> None:
    for name, run in runs():
        use(provided)
        ours = run()
        use(compiled)
        theirs = run()
        assert len(ours) == len(theirs), name
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f'{name}: {text}')
