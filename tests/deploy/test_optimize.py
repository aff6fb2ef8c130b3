"""`optimize`: the same function, the same state dict, and the modules' own way wherever the fast one would differ."""

import copy
import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmres2net.deploy import fast, folding, optimize
from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.compare import random_network

SMALL = dict(depths=(1, 2, 2, 2), base_width=10, scales=4)
TOLERANCE = 1e-5  # of a feature's largest value, as the docstring of `optimize` says


def network(dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    kind = Res2NetDLA if ARCHS.get(options.get('arch', '')) and ARCHS[options['arch']].family == 'dla' else Res2Net
    options = options or SMALL
    return random_network(lambda: kind(**options)).to(dtype).eval()


def twins(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Module, nn.Module]:
    plain = network(dtype, **options)
    return plain, optimize(copy.deepcopy(plain))


def features(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model(x)


def assert_same(model: nn.Module, plain: nn.Module, x: Tensor, tolerance: float = TOLERANCE) -> None:
    for got, wanted in zip(features(model, x), features(plain, x), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


def counted(monkeypatch: pytest.MonkeyPatch, kind: type = folding.FoldedConv) -> list[Any]:
    """Count the folded convolutions that are run."""
    calls: list[Any] = []
    for cls in {kind, folding.OneDnnConv}:
        for name in ('__call__', 'add'):
            if name in cls.__dict__:
                usual = cls.__dict__[name]

                def wrapped(self: Any, *args: Any, usual: Callable[..., Tensor] = usual, **more: Any) -> Tensor:
                    calls.append(self)
                    return usual(self, *args, **more)

                monkeypatch.setattr(cls, name, wrapped)
    return calls


@pytest.mark.parametrize('arch', ARCHS)
def test_every_row_of_the_table(arch: str) -> None:
    plain, quick = twins(arch=arch)
    x = torch.randn(1, 3, 32, 32) if ARCHS[arch].family == 'cifar' else torch.randn(1, 3, 64, 96)
    assert_same(quick, plain, x)


@pytest.mark.parametrize(
    'options',
    [
        dict(SMALL, scales=1, base_width=64),
        dict(SMALL, scales=2),
        dict(SMALL, deep_stem=True, avg_down=True),
        dict(SMALL, stage_pool='mmdet'),
        dict(SMALL, stage_pool='maskrcnn'),
        dict(SMALL, output_stride=16, multi_grid=(2, 4)),
        dict(SMALL, se_reduction=4),
        dict(SMALL, cardinality=2),
        dict(SMALL, out_indices=(1, 2)),
        dict(SMALL, drop_path_rate=0.3),
        dict(SMALL, norm_cfg=dict(type='GN', num_groups=2)),
        dict(SMALL, plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')]),
        dict(SMALL, dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, True, True)),
    ],
    ids=lambda options: '-'.join(sorted(set(options) - {'depths'})),
)
def test_options(options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 65, 97)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        plain, quick = twins(**options)
        assert_same(quick, plain, x.contiguous(memory_format=memory_format))


@pytest.mark.parametrize('arch', ['res2net50_26w_4s', 'res2net_dla60_4s', 'dla60x'])
def test_parity_in_float64(arch: str) -> None:
    """The arithmetic itself, without float32's rounding."""
    plain, quick = twins(torch.float64, arch=arch)
    assert_same(quick, plain, torch.randn(1, 3, 64, 64).double(), 1e-12)


@pytest.mark.parametrize('size', [(1, 1), (1, 70), (32, 32), (33, 64)])
def test_sizes_down_to_one_pixel(size: tuple[int, int]) -> None:
    plain, quick = twins()
    for _ in range(3):
        assert_same(quick, plain, torch.randn(2, 3, *size))


def test_sizes_that_change_and_come_back() -> None:
    """Weights are packed for a size that repeats; another size must not be given them."""
    plain, quick = twins()
    for side in (64, 64, 64, 96, 64, 96, 96, 32, 64):
        assert_same(quick, plain, torch.randn(1, 3, side, side))


def test_the_fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = optimize(network())
    calls = counted(monkeypatch)
    features(quick, torch.randn(1, 3, 64, 64))
    convs = sum(isinstance(module, nn.Conv2d) for module in quick.modules())
    assert len({id(call) for call in calls}) == convs


def test_state_dict_is_the_official_one() -> None:
    plain, quick = twins()
    before, after = plain.state_dict(), quick.state_dict()
    features(quick, torch.randn(1, 3, 64, 64))
    assert list(quick.state_dict()) == list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert isinstance(quick, Res2Net)
    other = random_network(lambda: Res2Net(**SMALL), seed=1).float().eval()
    quick.load_state_dict(other.state_dict(), strict=True)
    assert_same(quick, other, torch.randn(1, 3, 64, 64))


def test_twice_is_once() -> None:
    plain, quick = twins()
    assert optimize(quick) is quick
    assert_same(quick, plain, torch.randn(1, 3, 64, 64))


def test_copies_and_pickles_have_weights_of_their_own() -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    features(quick, x)
    twin = copy.deepcopy(quick)
    file = io.BytesIO()
    torch.save(quick, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    again = pickle.loads(pickle.dumps(quick))
    with torch.no_grad():
        for parameter in quick.parameters():
            parameter.zero_()
    for model in (twin, saved, again):
        assert_same(model, plain, x)
    assert all(float(feature.abs().max()) == 0 for feature in features(quick, x))


def change_in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)


def change_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.add_(0.1)


def change_unseen(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.9)
    model.eval()


def step_of_an_optimizer(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    sum(out.mean() for out in model(torch.ones(2, 3, 64, 64))).backward()
    optimizer.step()


@pytest.mark.parametrize('change', [change_in_place, change_statistics, change_unseen, step_of_an_optimizer])
def test_folded_weights_follow(change: Callable[[nn.Module], None]) -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    before = features(quick, x)
    for model in (plain, quick):
        change(model)
    assert_same(quick, plain, x, 1e-4 if change is step_of_an_optimizer else TOLERANCE)
    assert (features(quick, x)[-1] - before[-1]).abs().max() > 0.01


def test_a_new_module_is_seen() -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    features(quick, x)
    for model in (plain, quick):
        torch.manual_seed(3)
        model.layer1[0].conv1 = nn.Conv2d(64, 40, 1, bias=False)
    assert_same(quick, plain, x)


def test_other_types_and_back() -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    features(quick, x)
    assert_same(quick.double(), plain.double(), x.double(), 1e-12)
    assert_same(quick.float(), plain.float(), x)


def test_bfloat16() -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    wanted = features(plain, x)
    found = [features(quick.bfloat16(), x.bfloat16())]
    quick.float()
    with torch.autocast('cpu', torch.bfloat16):
        found.append(features(quick, x))
    for outs in found:
        assert all(out.dtype == torch.bfloat16 for out in outs)
        for got, expected in zip(outs, wanted, strict=True):
            assert (got.float() - expected).abs().max() <= 0.05 * expected.abs().max()


def test_input_and_outputs_stay_what_they_are() -> None:
    """Blocks overwrite what a block before them made, never what somebody else holds."""
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    kept = x.clone()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        outs = features(quick, given)
        assert torch.equal(given, kept)
        for got, wanted in zip(outs, features(plain, x), strict=True):
            assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    block = quick.layer1[0]
    entry = torch.randn(1, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    held = entry.clone()
    with torch.no_grad():
        block(entry)
        quick.layer2[1](torch.randn(1, 512, 8, 8).contiguous(memory_format=torch.channels_last))
    assert torch.equal(entry, held)
    second, same = torch.randn(1, 512, 8, 8).contiguous(memory_format=torch.channels_last), None
    same = second.clone()
    features(quick.layer2[1], second)
    assert torch.equal(second, same)


@pytest.mark.parametrize('path', ['layer2.0', 'layer2.1', 'layer2.1.bns.1', 'layer2.0.downsample.1', 'bn1', 'layer3'])
def test_hooks_see_what_they_would_see(path: str) -> None:
    plain, quick = twins()
    seen: dict[str, list[Tensor]] = {'plain': [], 'quick': []}
    handles = []
    for name, model in (('plain', plain), ('quick', quick)):
        hook = lambda m, i, out, name=name: seen[name].append(out)  # noqa: E731
        handles.append(model.get_submodule(path).register_forward_hook(hook))
    x = torch.randn(1, 3, 64, 64)
    assert_same(quick, plain, x)
    assert len(seen['quick']) == len(seen['plain']) == 1
    got, wanted = seen['quick'][0], seen['plain'][0]
    assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    for handle in handles:
        handle.remove()
    assert_same(quick, plain, x)


def test_gradients_are_those_of_the_modules() -> None:
    """In evaluation mode with gradients, as class activation maps and attribution need them."""
    plain, quick = twins(torch.float64)
    x = torch.randn(1, 3, 64, 64).double()
    grads = []
    for model in (plain, quick):
        image = x.clone().requires_grad_()
        sum(out.square().mean() for out in model(image)).backward()
        grads.append([image.grad, *(parameter.grad for parameter in model.parameters())])
    for got, wanted in zip(*grads, strict=True):
        assert (got - wanted).abs().max() <= 1e-9 * max(1.0, float(wanted.abs().max()))


def test_live_norms_count_batches() -> None:
    plain, quick = (model.train() for model in twins())
    x = torch.randn(4, 3, 64, 64)
    for got, wanted in zip(features(quick, x), features(plain, x), strict=True):
        assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    ours, theirs = quick.state_dict(), plain.state_dict()
    assert int(ours['layer4.0.bn1.num_batches_tracked']) == 1
    for name in theirs:
        assert (ours[name] - theirs[name]).abs().max() <= 1e-4 * max(1, theirs[name].abs().max())


def test_frozen_stages_are_fast_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = twins(**SMALL, frozen_stages=2, norm_eval=True)
    plain.train()
    quick.train()
    calls = counted(monkeypatch)
    x = torch.randn(2, 3, 64, 64)
    for got, wanted in zip(quick(x), plain(x), strict=True):
        assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    frozen = sum(isinstance(m, nn.Conv2d) for part in quick.frozen_modules() for m in part.modules())
    assert len(calls) == frozen


def test_inference_mode_then_training() -> None:
    """What was made in inference mode must not get into a graph."""
    plain, quick = twins(**SMALL, frozen_stages=1, norm_eval=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        quick(x)
    quick.train()
    for _ in range(2):
        sum(out.mean() for out in quick(x)).backward()
    quick.eval()
    assert_same(quick, plain, x)


def test_model_born_in_inference_mode() -> None:
    with torch.inference_mode():
        model = Res2Net(**SMALL).eval()
        x = torch.randn(1, 3, 64, 64)
        wanted = model(x)
        got = optimize(model)(x)
    assert (got[-1] - wanted[-1]).abs().max() <= TOLERANCE * wanted[-1].abs().max()


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = twins()
    x = torch.randn(1, 3, 64, 64)
    with torch.backends.mkldnn.flags(enabled=False):
        assert_same(quick, plain, x)
    assert_same(quick, plain, x)

    def missing(*args: Any) -> Tensor:
        raise AttributeError('no such operation in this torch')

    packet = SimpleNamespace(binary=missing, default=missing)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.mkldnn, '_convolution_pointwise', packet)
        folding.onednn_works.cache_clear()
        assert not folding.onednn_works(torch.float32)
        quick.eval()
        assert_same(quick, plain, x)
    folding.onednn_works.cache_clear()


def test_onednn_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = torch.ops.mkldnn._convolution_pointwise_
    wrong = SimpleNamespace(binary=lambda *args: fused.binary(*args) + 1)
    monkeypatch.setattr(torch.ops.mkldnn, '_convolution_pointwise_', wrong)
    folding.onednn_works.cache_clear()
    assert not folding.onednn_works(torch.float32)
    folding.onednn_works.cache_clear()


def test_traced_at_one_size_runs_at_another() -> None:
    plain, quick = twins()
    traced = torch.jit.trace(quick, torch.randn(1, 3, 64, 64), check_trace=False)
    x = torch.randn(2, 3, 96, 64)
    for got, wanted in zip(traced(x), features(plain, x), strict=True):
        assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


CONV_MODULES = {
    'norm and relu': dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    'norm': dict(norm_cfg=dict(type='BN'), act_cfg=None),
    'relu': dict(norm_cfg=None, act_cfg=dict(type='ReLU')),
    'bare': dict(norm_cfg=None, act_cfg=None),
    'leaky': dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'norm first': dict(norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act')),
    'reflecting': dict(norm_cfg=dict(type='BN'), padding_mode='reflect'),
    'spectral': dict(norm_cfg=dict(type='BN'), with_spectral_norm=True),
    'depthwise': dict(norm_cfg=dict(type='BN'), groups=8),
}
FOLDABLE = {'norm and relu', 'norm', 'relu', 'bare', 'leaky', 'depthwise'}


@pytest.mark.parametrize('name', CONV_MODULES)
def test_conv_modules(name: str) -> None:
    """mmcv's ConvModule, in which necks and heads are written, with each switch of its forward pass."""
    plain = ConvModule(8, 8, 3, padding=1, **CONV_MODULES[name]).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    quick = optimize(copy.deepcopy(plain))
    assert (type(quick) is fast.FastConvModule) == (name in FOLDABLE)
    x = torch.randn(2, 8, 9, 11)
    with torch.no_grad():
        for flags in ({}, {'activate': False}, {'norm': False}, {'activate': False, 'norm': False}):
            wanted = plain(x, **flags)
            assert (quick(x, **flags) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_chains() -> None:
    """Sequences of anything: what is foldable in them is folded, the order of the rest is kept."""
    parts = [
        nn.AvgPool2d(2), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 5, 1), nn.ReLU(),
        nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1),
    ]  # fmt: skip
    plain = nn.Sequential(*parts).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    quick = optimize(copy.deepcopy(plain))
    assert type(quick) is fast.FastChain
    x = torch.randn(1, 3, 20, 20)
    with torch.no_grad():
        wanted = plain(x)
        assert (quick(x) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert type(optimize(nn.Sequential(nn.ReLU()))) is nn.Sequential


def test_subclasses_are_left_alone() -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    assert type(optimize(Shifted(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))) is Shifted
