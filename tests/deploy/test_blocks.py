"""Fused blocks: the same function and state dict, and the plain modules wherever a user could tell the two apart."""

import copy
import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.deploy import onednn, use_fused_blocks
from mmres2net.models import ARCHS, Res2Net
from mmres2net.models.res2net import Bottle2neck
from tests.deploy.networks import ARCHS_BY_KIND, IMAGE, TOLERANCE, assert_same, features, fused_pair, network


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The fused convolutions that are run."""
    assert onednn.onednn_works()  # runs some itself, once in a process
    found: list[Any] = []
    for name in ('__call__', 'add_relu'):
        usual = getattr(onednn.FusedConv, name)

        def wrapped(self: Any, *args: Any, usual: Callable[..., Tensor] = usual, **options: Any) -> Tensor:
            found.append(self)
            return usual(self, *args, **options)

        monkeypatch.setattr(onednn.FusedConv, name, wrapped)
    return found


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


# The same function ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('arch', ARCHS_BY_KIND.values())
def test_every_kind_of_arch(arch: str) -> None:
    plain = network(arch=arch)
    fused = copy.deepcopy(plain)
    use_fused_blocks(fused)
    x = torch.randn(1, 3, 32, 32) if ARCHS[arch].family == 'cifar' else torch.randn(1, 3, 64, 96)
    assert_same(fused, plain, x)


@pytest.mark.parametrize(
    'options',
    [
        dict(scales=1, base_width=64),
        dict(scales=2),
        dict(deep_stem=True, avg_down=True),
        dict(stage_pool='mmdet'),
        dict(stage_pool='maskrcnn'),
        dict(output_stride=16, multi_grid=(2, 4)),
        dict(se_reduction=4),
        dict(cardinality=2),
        dict(out_indices=(1, 2)),
        dict(drop_path_rate=0.3),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')]),
        dict(dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, True, True)),
        dict(with_cp=True),
    ],
    ids=lambda options: '-'.join(sorted(options)),
)
def test_options(options: dict[str, Any]) -> None:
    plain, fused = fused_pair(**options)
    x = torch.randn(2, 3, 65, 97)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for _ in range(3):  # weights are packed for the third
            assert_same(fused, plain, x.contiguous(memory_format=memory_format))


def test_every_convolution_is_fused(calls: list[Any]) -> None:
    plain, fused = fused_pair()
    features(fused)
    assert len(calls) == len({id(call) for call in calls}) == convolutions(plain)


@pytest.mark.parametrize('sides', [(1, 1), (1, 70), (64, 64, 64, 96, 64, 96, 96, 32, 64)])
def test_sizes_that_change(sides: tuple[int, ...]) -> None:
    """Weights are packed for a size that repeats and must not be used for another; one pixel is a case of its own."""
    plain, fused = fused_pair()
    for side in sides:
        assert_same(fused, plain, torch.randn(2, 3, side, sides[0]))


def test_input_and_returned_features_are_not_overwritten() -> None:
    plain, fused = fused_pair()
    x = IMAGE.contiguous(memory_format=torch.channels_last)
    kept, outs = x.clone(), features(fused, x)
    assert torch.equal(x, kept)
    for got, wanted in zip(outs, features(plain), strict=True):
        assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    entry = torch.randn(1, 512, 8, 8).contiguous(memory_format=torch.channels_last)
    held = entry.clone()
    for part in (fused.layer2[1], fused.layer2[1:]):
        features(part, entry)
        assert torch.equal(entry, held)


@pytest.mark.parametrize('shortcut', [nn.Sequential(), nn.Dropout(0.5), nn.Identity()])
def test_shortcut_that_returns_its_input(shortcut: nn.Module) -> None:
    block = Bottle2neck(16, 16, width=4, scales=4, downsample=shortcut).eval()
    stage = nn.Sequential(copy.deepcopy(block), block)
    plain = copy.deepcopy(stage)
    use_fused_blocks(stage)
    x = torch.randn(1, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    held = x.clone()
    assert_same(stage, plain, x)
    assert torch.equal(x, held)


# State ----------------------------------------------------------------------------------------------------------------


def test_state_dict_and_description_stay() -> None:
    plain, fused = fused_pair()
    features(fused)
    state = fused.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert list(state) == list(plain.state_dict())
    assert isinstance(fused, Res2Net)
    assert repr(fused) == repr(plain)
    other = random_weights(1)
    fused.load_state_dict(other.state_dict(), strict=True)
    assert_same(fused, other)


def random_weights(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    return model


def test_copies_and_pickles_are_plain_and_independent() -> None:
    plain, fused = fused_pair()
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


def change_in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)


def change_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(0.1)


def change_through_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.9)
    model.eval()


def step_of_an_optimizer(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    sum(out.mean() for out in model(torch.ones(2, 3, 64, 64))).backward()
    optimizer.step()


def replace_a_convolution(model: nn.Module) -> None:
    torch.manual_seed(3)
    model.layer1[0].conv1 = nn.Conv2d(64, 40, 1, bias=False)


def replace_a_parameter(model: nn.Module) -> None:
    model.layer1[0].conv1.weight = nn.Parameter(model.layer1[0].conv1.weight.detach() * 2)


def change_an_option(model: nn.Module) -> None:
    model.layer4[1].convs[0].dilation = model.layer4[1].convs[0].padding = (2, 2)
    model.layer1[0].bn3.eps = 0.5


def load_and_assign(model: nn.Module) -> None:
    model.load_state_dict(random_weights(2).state_dict(), assign=True)


CHANGES = [
    change_in_place, change_statistics, change_through_data, step_of_an_optimizer, replace_a_convolution,
    replace_a_parameter, change_an_option, load_and_assign,
]  # fmt: skip


@pytest.mark.parametrize('change', CHANGES)
def test_changes_are_seen(change: Callable[[nn.Module], None]) -> None:
    plain, fused = fused_pair()
    before = features(fused)
    for model in (plain, fused):
        change(model)
    assert_same(fused, plain, tolerance=1e-4 if change is step_of_an_optimizer else TOLERANCE)
    assert (features(fused)[-1] - before[-1]).abs().max() > 1e-3


def test_average_of_the_weights() -> None:
    """MMEngine's average writes through ``.data``: neither the average nor the swap with it may leave old weights."""
    _, fused = fused_pair()
    average = ExponentialMovingAverage(fused, momentum=0.5)
    for _ in range(3):
        features(average.module)
        change_in_place(fused)
        average.update_parameters(fused)
        expected = network()
        expected.load_state_dict(average.module.state_dict())
        assert_same(average.module, expected)
    for mine, other in zip(fused.parameters(), average.module.parameters(), strict=True):
        mine.data.copy_(other.data)
    fused.eval()
    assert_same(fused, expected)


# Where the plain modules run ------------------------------------------------------------------------------------------


class Softer(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0.9


class Scaled(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def subclass(kind: type[nn.Module]) -> Callable[[nn.Module, pytest.MonkeyPatch], None]:
    def change(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
        for module in list(model.modules()):
            if type(module) is kind.__base__:
                module.__class__ = kind

    return change


def parametrized(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    parametrize.register_parametrization(model.layer2[1].convs[0], 'weight', Half())


def pruned(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    prune.l1_unstructured(model.layer2[1].conv3, 'weight', 0.5)


def patched_module(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    usual = model.layer2[1].bns[1].forward
    model.layer2[1].bns[1].forward = lambda x: usual(x) + 1


def patched_convolution(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    conv = model.layer1[0].conv1
    conv._conv_forward = lambda x, weight, bias: nn.functional.conv2d(x, weight * 2, bias)


def patched_block(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    model.layer3[1]._multi_scale = lambda x: x


def patched_class(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    usual = nn.BatchNorm2d.forward
    patch.setattr(nn.BatchNorm2d, 'forward', lambda self, x: usual(self, x) + 1)


def hook_that_changes(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    model.layer2[1].bns[0].register_forward_hook(lambda module, inputs, out: out + 1)
    model.layer3.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)
    model.bn1.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)


def norm_on_the_batch(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    model.layer2[1].bn1.train()


def norm_without_statistics(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    model.layer2[1].bn1 = nn.BatchNorm2d(80, track_running_stats=False).eval()


def same_padding(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    model.layer2[1].convs[0].padding = 'same'


def reflecting(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    conv = model.layer2[1].convs[0]
    model.layer2[1].convs[0] = nn.Conv2d(20, 20, 3, padding=1, bias=False, padding_mode='reflect')
    model.layer2[1].convs[0].weight = conv.weight


MODIFICATIONS = [
    subclass(Softer), subclass(Scaled), subclass(Standardized), parametrized, pruned, patched_module,
    patched_convolution, patched_block, patched_class, hook_that_changes, norm_on_the_batch, norm_without_statistics,
    same_padding, reflecting,
]  # fmt: skip


@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('modify', MODIFICATIONS, ids=lambda f: f'{f.__name__}')
def test_modified_models_compute_what_they_say(
    modify: Callable[[nn.Module, pytest.MonkeyPatch], None], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = network()
    unmodified = features(plain)
    fused = copy.deepcopy(plain)
    if when == 'after':
        use_fused_blocks(fused)
        features(fused)
    with monkeypatch.context() as patch:
        for model in (plain, fused):
            torch.manual_seed(0)
            modify(model, patch)
            if modify is patched_class:
                patch.undo()  # once is enough
        if modify is patched_class:
            patched_class(plain, patch)
        use_fused_blocks(fused)
        assert_same(fused, plain)
        if modify not in (same_padding,):
            assert (features(plain)[-1] - unmodified[-1]).abs().max() > 1e-4


@pytest.mark.parametrize('path', ['layer2.0', 'layer2.1', 'layer2.1.bns.1', 'layer2.0.downsample.1', 'bn1', 'layer3'])
def test_hooks_see_what_they_would_see(path: str) -> None:
    plain, fused = fused_pair()
    seen: list[list[Tensor]] = [[], []]
    handles = [
        model.get_submodule(path).register_forward_hook(lambda module, inputs, out, found=found: found.append(out))
        for model, found in zip((plain, fused), seen, strict=True)
    ]
    assert_same(fused, plain)
    ((wanted,), (got,)) = seen
    assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    for handle in handles:
        handle.remove()
    assert_same(fused, plain)


def test_global_hooks_see_every_module() -> None:
    _, fused = fused_pair()
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, out: seen.append(module))
    try:
        features(fused)
    finally:
        handle.remove()
    assert sum(isinstance(module, nn.Conv2d) for module in seen) == convolutions(fused)


def test_flop_counter_counts_every_convolution() -> None:
    plain, fused = fused_pair()
    counts = []
    for model in (plain, fused):
        with FlopCounterMode(display=False) as counter:
            features(model)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e7


def test_gradients_are_those_of_the_modules() -> None:
    """In evaluation mode with gradients, as class activation maps need them; the modules run, so they are equal."""
    grads = []
    for model in fused_pair():
        image = IMAGE.clone().requires_grad_()
        sum(out.square().mean() for out in model(image)).backward()
        grads.append([image.grad, *(parameter.grad for parameter in model.parameters())])
    for got, wanted in zip(*grads, strict=True):
        assert torch.equal(got, wanted)


def test_function_transforms() -> None:
    plain, fused = fused_pair()
    for model in (plain, fused):
        model.requires_grad_(False)
    tangent = torch.ones_like(IMAGE)
    results = [torch.func.jvp(lambda x, model=model: model(x)[0], (IMAGE,), (tangent,)) for model in (plain, fused)]
    for got, wanted in zip(*results, strict=True):
        assert torch.equal(got, wanted)
        assert wanted.abs().max() > 0


# Training, compilation, export ----------------------------------------------------------------------------------------


def train_step(model: nn.Module, run: Callable[..., Any] | None = None) -> list[Tensor]:
    """Loss, gradients and buffers of one step."""
    model.train()
    model.zero_grad()
    outs = (model if run is None else run)(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)))
    loss = sum(out.square().mean() for out in outs)
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [loss.detach(), *grads, *(buffer.clone() for buffer in model.buffers())]


def assert_same_step(got: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(got) == len(wanted) > 10
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).double().norm() <= 5e-3 * b.double().norm() + 1e-5


TRAINED = pytest.mark.parametrize(
    'options', [{}, dict(frozen_stages=2, norm_eval=True), dict(frozen_stages=1, with_cp=True)], ids=str
)


@TRAINED
@pytest.mark.parametrize('how', ['plain', 'activation_checkpointing', 'checkpoint', 'compiled'])
def test_training_step(options: dict[str, Any], how: str) -> None:
    plain, fused = fused_pair(depths=(1, 1, 2), **options)
    run: Any = fused
    if how == 'activation_checkpointing':
        for model in (plain, fused):
            turn_on_activation_checkpointing(model, ['layer1.0', 'layer2', 'layer3.1'])
    elif how == 'checkpoint':
        run = lambda x: checkpoint(fused, x.requires_grad_(), use_reentrant=False)  # noqa: E731
    elif how == 'compiled':
        if options.get('with_cp'):
            return  # checkpointing in compilation belongs to the tests of the models
        run = torch.compile(fused, backend='aot_eager')
    for _ in range(2):
        wanted, got = train_step(plain), train_step(fused, run)
        if how == 'checkpoint':  # a norm counts the batch again when it is recomputed
            count = len(list(plain.buffers()))
            wanted, got = wanted[:-count], got[:-count]
        assert_same_step(got, wanted)
    fused.eval()
    plain.load_state_dict(fused.state_dict())
    plain.eval()
    assert_same(fused, plain)


def test_frozen_stages_are_fused_in_training_and_packed_once(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = fused_pair(frozen_stages=2, norm_eval=True)
    packed: list[Any] = []
    usual = onednn._pack
    monkeypatch.setattr(onednn, '_pack', lambda *args: packed.append(args) or usual(*args))
    frozen = sum(convolutions(part) for part in fused.frozen_modules())
    for _ in range(4):
        fused.train()  # MMEngine's loop by iterations does so at every step
        fused(torch.randn(2, 3, 64, 64))
    assert len(calls) == 4 * frozen
    assert len(packed) == frozen


def test_compiled_inference() -> None:
    plain, fused = fused_pair(depths=(1, 2))
    features(fused)
    compiled = torch.compile(fused, backend='aot_eager', fullgraph=True)
    for side in (64, 96):
        assert_same(compiled, plain, torch.randn(1, 3, side, 64))


def test_exported_and_traced() -> None:
    plain, fused = fused_pair(depths=(1, 2))
    features(fused)
    exported = torch.export.export(fused, (IMAGE,)).module()
    traced = torch.jit.trace(fused, torch.randn(1, 3, 96, 64), check_trace=False)
    for model in (exported, traced):
        for got, wanted in zip(model(IMAGE), features(plain), strict=True):
            assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_run_the_plain_modules(dtype: torch.dtype, calls: list[Any]) -> None:
    plain, fused = fused_pair()
    features(fused)
    calls.clear()
    for got, wanted in zip(
        features(fused.to(dtype), IMAGE.to(dtype)), features(plain.to(dtype), IMAGE.to(dtype)), strict=True
    ):
        assert torch.equal(got, wanted)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(features(fused.float())[-1], features(plain.float())[-1])
    assert not calls
    assert_same(fused, plain)


def test_inference_mode() -> None:
    plain, fused = fused_pair(frozen_stages=1, norm_eval=True)
    with torch.inference_mode():
        fused(IMAGE)
        born = random_weights(1)
        wanted = born(IMAGE)
        use_fused_blocks(born)
        assert torch.equal(born(IMAGE)[-1], wanted[-1])
    assert_same_step(train_step(fused), train_step(plain))


# oneDNN ---------------------------------------------------------------------------------------------------------------


def test_onednn_that_is_off_missing_or_wrong_is_not_used(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = fused_pair()
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
