"""Fused blocks: the same function and state dict, and the plain modules wherever a user could tell the two apart."""

import copy
import io
import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.deploy import blocks, onednn, use_fused_blocks
from mmres2net.models import ARCHS
from mmres2net.models.res2net import Bottle2neck
from tests.deploy.networks import CHANGES, IMAGE, MODIFICATIONS, assert_same, change, features, modify, network, pair

LAST = torch.channels_last
# One architecture, the shallowest, for each kind of block and stem that has fused blocks.
ARCHS_BY_KIND = {
    (arch.family, arch.deep_stem, arch.scales > 1, arch.cardinality > 1, arch.se_reduction): name
    for name, arch in sorted(ARCHS.items(), key=lambda item: -sum(item[1].depths))
    if arch.family != 'dla' or arch.scales > 1
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    assert onednn.onednn_works()  # runs some itself, once in a process
    found: list[Any] = []
    for name in ('__call__', 'add_relu'):
        usual = getattr(onednn.FusedConv, name)

        def wrapped(self: Any, *args: Any, usual: Any = usual, **options: Any) -> Tensor:
            found.append(self)
            return usual(self, *args, **options)

        monkeypatch.setattr(onednn.FusedConv, name, wrapped)
    return found


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.parametrize('name', ARCHS_BY_KIND.values())
def test_every_kind_of_arch(name: str) -> None:
    arch = ARCHS[name]
    shallow = vars(arch) | dict(depths=(1, 2, 1, 1)[: len(arch.depths)])
    plain = network(arch=name) if arch.family == 'dla' else network(**shallow)
    fused = copy.deepcopy(plain)
    use_fused_blocks(fused)
    assert_same(fused, plain, torch.randn(1, 3, 32, 32 if arch.family == 'cifar' else 64))


OPTIONS: list[dict[str, Any]] = [
    dict(scales=1, base_width=64), dict(scales=2), dict(deep_stem=True, avg_down=True), dict(stage_pool='mmdet'),
    dict(stage_pool='maskrcnn'), dict(depths=(1, 1, 1, 2), output_stride=16, multi_grid=(2, 4)),
    dict(se_reduction=4), dict(cardinality=2), dict(out_indices=(1, 2)), dict(drop_path_rate=0.3),
    dict(norm_cfg=dict(type='GN', num_groups=2)), dict(with_cp=True),
    dict(plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')]),
    dict(dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, True)),
]  # fmt: skip


@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: '-'.join(sorted(options)))
def test_options(options: dict[str, Any]) -> None:
    plain, fused = pair(**options)
    for memory_format in (torch.contiguous_format, LAST):
        x = torch.randn(2, 3, 33, 49).contiguous(memory_format=memory_format)
        held = x.clone()
        for _ in range(3):  # weights are packed for the third
            assert_same(fused, plain, x)
        assert torch.equal(x, held)


def test_every_convolution_is_fused_and_of_frozen_stages_in_training_too(calls: list[Any]) -> None:
    plain, fused = pair(**FROZEN)
    features(fused)
    assert len(calls) == len({id(call) for call in calls}) == convolutions(plain)
    calls.clear()
    fused.train()(torch.randn(2, 3, 64, 64))
    assert len(calls) == sum(convolutions(part) for part in fused.frozen_modules())


@pytest.mark.parametrize('sides', [(1, 1), (1, 70), (64, 64, 64, 96, 64, 96, 96, 32, 64)])
def test_sizes_that_change(sides: tuple[int, ...]) -> None:
    """Weights are packed for a size that repeats and must not be used for another; one pixel is a case of its own."""
    plain, fused = pair()
    for side in sides:
        assert_same(fused, plain, torch.randn(2, 3, side, sides[0]))


@pytest.mark.parametrize('shortcut', [nn.Sequential(), nn.Dropout(0.5), nn.Identity()])
def test_shortcut_that_returns_its_input(shortcut: nn.Module) -> None:
    block = Bottle2neck(16, 16, width=4, scales=4, downsample=shortcut).eval()
    stage = nn.Sequential(copy.deepcopy(block), block)
    plain = copy.deepcopy(stage)
    use_fused_blocks(stage)
    x = torch.randn(1, 16, 8, 8).contiguous(memory_format=LAST)
    held = x.clone()
    assert_same(stage, plain, x)
    assert torch.equal(x, held)


def test_state_dict_and_description_stay() -> None:
    plain, fused = pair()
    features(fused)
    state = fused.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert isinstance(fused, type(plain))
    assert repr(fused) == repr(plain)
    other = network(seed=1)
    fused.load_state_dict(other.state_dict(), strict=True)
    assert_same(fused, other)


def test_copies_and_pickles_are_plain_and_independent() -> None:
    plain, fused = pair()
    features(fused)
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    copies = [copy.deepcopy(fused), torch.load(file, weights_only=False), pickle.loads(pickle.dumps(fused))]
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    for model in copies:
        assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
        assert_same(model, plain)
    assert all(float(feature.abs().max()) == 0 for feature in features(fused))


@pytest.mark.parametrize('how', CHANGES)
def test_changes_are_seen(how: str) -> None:
    plain, fused = pair()
    before = features(fused)
    for model in (plain, fused):
        change(how, model)
    assert_same(fused, plain)
    assert (features(fused)[-1] - before[-1]).abs().max() > 1e-3


@pytest.mark.parametrize('how', MODIFICATIONS)
def test_modified_models_compute_what_they_say(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modified before blocks are fused, and after the first use of fused blocks."""
    plain, after = pair()
    before, unmodified = copy.deepcopy(plain), features(after)
    with monkeypatch.context() as patch:
        modify(how, patch, plain, before, after)
        for fused in (before, after):
            use_fused_blocks(fused)
            assert_same(fused, plain)
        assert how == 'same padding' or (features(plain)[-1] - unmodified[-1]).abs().max() > 1e-4


def test_global_hooks_and_flop_counters_see_every_convolution() -> None:
    plain, fused = pair()
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, out: seen.append(module))
    try:
        features(fused)
    finally:
        handle.remove()
    assert sum(isinstance(module, nn.Conv2d) for module in seen) == convolutions(fused)
    counts = []
    for model in (plain, fused):
        with FlopCounterMode(display=False) as counter:
            features(model)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e7


def test_gradients_and_function_transforms_are_those_of_the_modules() -> None:
    """In evaluation mode with gradients, as class activation maps need them; the modules run, so they are equal."""
    grads = []
    for model in pair():
        image = IMAGE.clone().requires_grad_()
        sum(out.square().mean() for out in model(image)).backward()
        jvp = torch.func.jvp(lambda x, model=model: model(x)[0], (IMAGE,), (torch.ones_like(IMAGE),))
        grads.append([image.grad, *(parameter.grad for parameter in model.parameters()), *jvp])
    assert all(torch.equal(got, wanted) and wanted.any() for got, wanted in zip(*grads, strict=True))


def train_step(model: nn.Module, run: Any = None) -> list[Tensor]:
    model.train()
    model.zero_grad()
    outs = (model if run is None else run)(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)))
    loss = sum(out.square().mean() for out in outs)
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [loss.detach(), *grads, *(buffer.clone() for buffer in model.buffers())]


FROZEN = dict(frozen_stages=2, norm_eval=True)
TRAINED: list[tuple[str, dict[str, Any]]] = [
    ('plain', {}), ('plain', FROZEN), ('plain', dict(frozen_stages=1, with_cp=True)), ('activation_checkpointing', {}),
    ('activation_checkpointing', FROZEN), ('checkpoint', dict(frozen_stages=1)), ('compiled', FROZEN),
    ('inference_mode', FROZEN),
]  # fmt: skip


@pytest.mark.parametrize(('how', 'options'), TRAINED)
def test_training_step(how: str, options: dict[str, Any]) -> None:
    plain, fused = pair(**options)
    run: Any = fused
    if how == 'activation_checkpointing':
        for model in (plain, fused):
            turn_on_activation_checkpointing(model, ['layer1.0', 'layer2', 'layer3.1'])
    elif how == 'checkpoint':
        run = lambda x: checkpoint(fused, x.requires_grad_(), use_reentrant=False)  # noqa: E731
    elif how == 'compiled':
        run = torch.compile(fused, backend='aot_eager')
    elif how == 'inference_mode':  # whose tensors must not be kept for training
        with torch.inference_mode():
            fused(IMAGE)
    for _ in range(2):
        wanted, got = train_step(plain), train_step(fused, run)
        if how == 'checkpoint':  # a norm counts the batch again when it is recomputed
            count = len(list(plain.buffers()))
            wanted, got = wanted[:-count], got[:-count]
        assert len(got) == len(wanted) > 10
        for a, b in zip(got, wanted, strict=True):
            assert (a - b).double().norm() <= 5e-3 * b.double().norm() + 1e-5
    plain.load_state_dict(fused.state_dict())
    assert_same(fused.eval(), plain.eval())


def test_compiled_exported_and_traced() -> None:
    plain, fused = pair(depths=(1, 2))
    features(fused)
    exported = torch.export.export(fused, (IMAGE,)).module()
    traced = torch.jit.trace(fused, torch.randn(1, 3, 96, 64), check_trace=False)
    compiled = torch.compile(fused, backend='aot_eager', fullgraph=True)
    for model in (exported, traced, compiled):
        assert_same(model, plain)
    assert_same(compiled, plain, torch.randn(1, 3, 96, 64))


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_run_the_plain_modules(dtype: torch.dtype, calls: list[Any]) -> None:
    plain, fused = pair()
    features(fused)
    calls.clear()
    assert_same(fused.to(dtype), plain.to(dtype), IMAGE.to(dtype), tolerance=0)
    with torch.autocast('cpu', torch.bfloat16):
        assert_same(fused.float(), plain.float(), tolerance=0)
    assert not calls
    assert_same(fused, plain)


def test_onednn_that_is_off_missing_or_wrong_is_not_used(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = pair()
    with torch.backends.mkldnn.flags(enabled=False):
        assert_same(fused, plain)
    assert not calls

    def missing(*args: Any) -> Tensor:
        raise AttributeError('no such operation in this torch')

    inplace = torch.ops.mkldnn._convolution_pointwise_
    for name, packet in (
        ('_convolution_pointwise', SimpleNamespace(binary=missing, default=missing)),
        ('_convolution_pointwise_', SimpleNamespace(binary=lambda *args: inplace.binary(*args) + 1)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(torch.ops.mkldnn, name, packet)
            onednn.onednn_works.cache_clear()
            assert not onednn.onednn_works()
            assert_same(fused, plain)
    onednn.onednn_works.cache_clear()
    calls.clear()
    assert_same(fused, plain)
    assert calls


@pytest.mark.parametrize(('capability', 'slow'), [('AVX2', 'add_relu'), ('DEFAULT', 'add_relu'), ('NO AVX', 'forward')])
def test_time_decides_where_the_processor_does_not(capability: str, slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = onednn.FusedConv if slow == 'add_relu' else nn.Conv2d
    usual = getattr(kind, slow)
    monkeypatch.setattr(kind, slow, lambda *args, **options: (time.sleep(0.02), usual(*args, **options))[1])
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    assert onednn.onednn_works.__wrapped__() == ((capability, slow) != ('DEFAULT', 'add_relu'))


@pytest.mark.parametrize('bias', [True, False])
def test_linear_layers_are_convolutions_where_they_are_large(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(blocks, 'mkl_is_slow', lambda: True)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    monkeypatch.setattr(blocks, 'conv2d', lambda *args: calls.append(args) or nn.functional.conv2d(*args))
    plain = nn.Linear(128, 130, bias=bias)
    fused = copy.deepcopy(plain)
    use_fused_blocks(fused)
    for shape in ((2, 70, 128), (9, 128), (0, 128), (128,)):
        results = []
        for model in (plain, fused):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
            grads = torch.autograd.grad(model(x).square().sum(), (x, *model.parameters()))
            results.append([model(x), *grads])
        assert all(torch.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in zip(*results, strict=True))
    assert len(calls) == 2  # of the first shape
    x = torch.randn(128, 128)
    with torch.autocast('cpu', torch.bfloat16):
        assert fused(x).dtype == torch.bfloat16
    assert torch.equal(torch.compile(fused, backend='aot_eager', fullgraph=True)(x), plain(x))
    with pytest.raises(RuntimeError):
        fused(torch.ones(256, 64))
    assert len(calls) == 2
    assert type(copy.deepcopy(fused)) is nn.Linear
