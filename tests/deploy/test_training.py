"""Blocks as one step of the autograd graph: the modules' own numbers, statistics and errors, with less kept."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmres2net.deploy import optimize
from mmres2net.deploy.live import LiveNormBlock
from mmres2net.deploy.training import FrozenNormBlock
from mmres2net.models import Res2Net, Res2NetDLA
from mmres2net.models.res2net import Bottle2neck
from tests.reference.compare import assert_same_function, random_network, randomise

SMALL = dict(depths=(2, 1, 1, 1), base_width=8, scales=4)
KINDS = {'live': LiveNormBlock, 'frozen': FrozenNormBlock}
MODES = {'live': 'train', 'frozen': 'eval'}


def twins(kind: str = 'live', dtype: torch.dtype = torch.float64, **options: Any) -> tuple[nn.Module, nn.Module]:
    plain = random_network(lambda: Res2Net(**(options or SMALL))).to(dtype).train(kind == 'live')
    return plain, optimize(copy.deepcopy(plain))


def block_twins(kind: str = 'live', **options: Any) -> tuple[nn.Module, nn.Module]:
    """One block with a shortcut of its own, and the same one as a single step."""
    shape = dict(width=4, scales=3, downsample=nn.Conv2d(6, 8, 1, bias=False))
    plain = randomise(Bottle2neck(6, 8, **{**shape, **options})).train(kind == 'live')
    return plain, optimize(copy.deepcopy(plain))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the blocks that are done as one step."""
    calls = dict.fromkeys(KINDS, 0)
    for name, function in KINDS.items():

        def counting(*args: Any, name: str = name, usual: Callable[..., Tensor] = function.apply) -> Tensor:
            calls[name] += 1
            return usual(*args)

        monkeypatch.setattr(function, 'apply', counting)
    return calls


def run(model: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Return outputs and gradients of input and parameters, for the same random gradient of the outputs."""
    model.zero_grad()
    x = x.detach().clone().requires_grad_(x.requires_grad)
    outs = model(x)
    outs = outs if isinstance(outs, tuple) else (outs,)
    gen = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=gen, dtype=torch.float64).to(out.dtype) for out in outs]
    sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True)).backward()
    return [*(out.detach() for out in outs), x.grad, *(parameter.grad for parameter in model.parameters())]


def assert_same_runs(ours: nn.Module, plain: nn.Module, x: Tensor, tolerance: float = 1e-9) -> None:
    for got, wanted in zip(run(ours, x), run(plain, x), strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            assert (got - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1)
    buffers = dict(plain.named_buffers())
    for name, buffer in ours.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert (buffer - buffers[name]).abs().max() <= tolerance * buffers[name].abs().max().clamp(min=1), name


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'options',
    [
        SMALL,
        dict(SMALL, cardinality=4),
        dict(SMALL, scales=2),
        dict(SMALL, scales=1),
        dict(SMALL, deep_stem=True, avg_down=True),
        dict(SMALL, dilations=(1, 2, 1, 1)),
        dict(SMALL, output_stride=16),
        dict(SMALL, stage_pool='mmdet', output_stride=16),
        dict(SMALL, stage_pool='mmdet'),
        dict(SMALL, stage_pool='maskrcnn'),
    ],
    ids=lambda options: '-'.join(f'{k}={options[k]}' for k in options if options[k] != SMALL.get(k)) or 'usual',
)
def test_parity_in_float64(kind: str, options: dict[str, Any], steps: dict[str, int]) -> None:
    """Outputs, all gradients, running statistics and counters."""
    plain, quick = twins(kind, **options)
    x = torch.randn(2, 3, 47, 66, dtype=torch.float64)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        assert_same_function(quick, plain, given, modes=(MODES[kind],))
    assert steps[kind] == 2 * 5
    assert sum(steps.values()) == 2 * 5


def test_norms_count_batches(steps: dict[str, int]) -> None:
    plain, quick = twins()
    for seed in range(3):
        x = torch.randn(2, 3, 47, 66, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert_same_runs(quick, plain, x)
    counters = [buffer for name, buffer in quick.named_buffers() if name.endswith('num_batches_tracked')]
    assert all(int(counter) == 3 for counter in counters)
    assert steps['live'] == 3 * 5


@pytest.mark.parametrize('kind', KINDS)
def test_float32(kind: str) -> None:
    """The operations of the type that is trained in: in float64 other ones do the work."""
    plain, quick = block_twins(kind)
    x = torch.randn(2, 6, 9, 11, requires_grad=True)
    assert_same_runs(quick.float(), plain.float(), x, 1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_bfloat16(kind: str, steps: dict[str, int]) -> None:
    """As near to float32 as the modules in bfloat16 are."""
    plain, quick = block_twins(kind)
    x = torch.randn(4, 6, 9, 11)
    wanted = run(plain.float(), x)
    usual, ours = run(plain.bfloat16(), x.bfloat16()), run(quick.bfloat16(), x.bfloat16())
    errors = {'usual': 0.0, 'ours': 0.0}
    for expected, theirs, got in zip(wanted, usual, ours, strict=True):
        if expected is not None:
            assert got.dtype == theirs.dtype
            errors['usual'] += float((theirs.float() - expected).norm() / expected.norm())
            errors['ours'] += float((got.float() - expected).norm() / expected.norm())
    assert errors['ours'] <= 1.5 * errors['usual']
    assert steps[kind] == 1


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('wanted', ['convolutions', 'norms', 'conv1', 'bns.1', 'conv3', 'input', 'everything'])
@pytest.mark.parametrize('input_too', [False, True])
def test_only_some_gradients(kind: str, wanted: str, input_too: bool, steps: dict[str, int]) -> None:
    plain, quick = block_twins(kind)
    of = {
        'convolutions': lambda name: 'conv' in name,
        'norms': lambda name: 'bn' in name,
        'input': lambda name: False,
        'everything': lambda name: True,
    }
    takes = of.get(wanted, lambda name: name.startswith(wanted))
    for model in (plain, quick):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(takes(name))
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64, requires_grad=input_too or wanted == 'input')
    assert_same_runs(quick, plain, x)
    assert steps[kind] == 1


@pytest.mark.parametrize('kind', KINDS)
def test_each_norm_parameter_alone(kind: str) -> None:
    plain, quick = block_twins(kind)
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    for chosen in [name for name, _ in plain.named_parameters()]:
        for model in (plain, quick):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name == chosen)
        assert_same_runs(quick, plain, x)


@pytest.mark.parametrize('kind', KINDS)
def test_shortcut_from_outside(kind: str, steps: dict[str, int]) -> None:
    """Deep layer aggregation gives the block its shortcut; it may be one tensor with the input."""
    plain = randomise(Bottle2neck(8, 8, width=4, scales=2)).train(kind == 'live')
    quick = optimize(copy.deepcopy(plain))
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    for same in (False, True):
        grads = []
        for model in (plain, quick):
            entry, shortcut = x.clone().requires_grad_(), x.flip(0).requires_grad_()
            out = model(entry, entry if same else shortcut)
            (out * x).sum().backward()
            grads.append((out, entry.grad, entry.grad if same else shortcut.grad))
        for got, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    assert steps[kind] == 2


def test_deep_layer_aggregation(steps: dict[str, int]) -> None:
    plain = random_network(lambda: Res2NetDLA('res2net_dla60_4s', out_indices=(0, 1, 2)))
    quick = optimize(copy.deepcopy(plain))
    assert_same_function(quick, plain, torch.randn(2, 3, 32, 48, dtype=torch.float64), modes=('train',))
    assert steps['live'] > 0


def test_frozen_stages(steps: dict[str, int]) -> None:
    """Frozen stages take the way of inference; the others are one step each."""
    plain, quick = twins(**SMALL, frozen_stages=1)
    assert_same_runs(quick.train(), plain.train(), torch.randn(2, 3, 47, 66, dtype=torch.float64))
    assert steps == {'live': 3, 'frozen': 0}
    plain, quick = twins(**SMALL, frozen_stages=1, norm_eval=True)
    assert_same_runs(quick.train(), plain.train(), torch.randn(2, 3, 47, 66, dtype=torch.float64))
    assert steps == {'live': 3, 'frozen': 3}


def mix_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Bottle2neck):
            module.bn3.eval()


def average_all_batches(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


def hook_forward(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Bottle2neck):
            module.convs[0].register_forward_hook(lambda *args: args[-1] * 2)


def hook_backward(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Bottle2neck):
            module.convs[0].register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 2,))


@pytest.mark.parametrize(
    ('kind', 'change'),
    [
        ('live', mix_norms),
        ('live', average_all_batches),
        ('live', hook_forward),
        ('live', hook_backward),
        ('frozen', hook_forward),
        ('frozen', hook_backward),
    ],
)
def test_where_modules_do_it_themselves(kind: str, change: Callable[[nn.Module], None], steps: dict[str, int]) -> None:
    plain, quick = twins(kind)
    for model in (plain, quick):
        change(model)
    for _ in range(2):
        assert_same_runs(quick, plain, torch.randn(2, 3, 47, 66, dtype=torch.float64))
    assert sum(steps.values()) == 0


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('options', [dict(with_cp=True), dict(se_reduction=4), dict(drop_path_rate=0.5)], ids=str)
def test_options_where_modules_do_it_themselves(kind: str, options: dict[str, Any], steps: dict[str, int]) -> None:
    plain, quick = twins(kind, **SMALL, **options)
    x = torch.randn(2, 3, 47, 66, dtype=torch.float64)
    results = []
    for model in (plain, quick):
        torch.manual_seed(4)  # of the paths that are dropped
        results.append(run(model, x))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    # the first block's drop path has probability 0, and no path is dropped outside of training
    dropping = 'drop_path_rate' in options
    assert steps[kind] == (5 if kind == 'frozen' else 1 if dropping else 0) * dropping


def test_norms_without_parameters(steps: dict[str, int]) -> None:
    plain, quick = twins(**SMALL, norm_cfg=dict(type='BN', affine=False))
    assert_same_runs(quick, plain, torch.randn(2, 3, 47, 66, dtype=torch.float64))
    assert steps['live'] == 0


@pytest.mark.parametrize('kind', KINDS)
def test_autocast(kind: str, steps: dict[str, int]) -> None:
    plain, quick = block_twins(kind)
    x = torch.randn(2, 6, 7, 9)
    with torch.autocast('cpu', torch.bfloat16):
        wanted, got = plain.float()(x), quick.float()(x)
    assert got.dtype == wanted.dtype
    assert (got - wanted).abs().max() <= 0.05 * wanted.abs().max()
    assert sum(steps.values()) == 0


@pytest.mark.parametrize('kind', KINDS)
def test_steps_of_an_optimizer(kind: str, steps: dict[str, int]) -> None:
    plain, quick = twins(kind)
    inputs = [torch.randn(2, 3, 47, 66, dtype=torch.float64) for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    for model in (plain, quick):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        for x in inputs:
            optimizer.zero_grad()
            sum(out.square().mean() for out in model(x)).backward()
            optimizer.step()
    for name, wanted in plain.state_dict().items():
        torch.testing.assert_close(quick.state_dict()[name], wanted, rtol=1e-9, atol=1e-9, msg=name)
        assert kind == 'frozen' or not torch.equal(wanted, before[name]), name
    assert steps[kind] == 2 * 5


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('options', [dict(), dict(is_first=True, stride=2), dict(cardinality=2, dilation=2)], ids=str)
def test_gradcheck(kind: str, options: dict[str, Any], steps: dict[str, int]) -> None:
    stride = options.get('stride', 1)
    downsample = nn.Conv2d(3, 4, 1, stride=stride, bias=False)
    plain = randomise(Bottle2neck(3, 4, width=2, scales=3, downsample=downsample, **options)).train(kind == 'live')
    quick = optimize(plain)
    names = [name for name, _ in quick.named_parameters()]
    inputs = [torch.randn(2, 3, 4, 4, dtype=torch.float64), *(p.detach() for p in quick.parameters())]

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(quick, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, [tensor.clone().requires_grad_() for tensor in inputs])
    assert steps[kind] > 0


@pytest.mark.parametrize('kind', KINDS)
def test_twice_in_one_graph(kind: str) -> None:
    """A backbone that sees two images before it is differentiated: statistics move in between."""
    plain, quick = block_twins(kind)
    first, second = torch.randn(2, 2, 6, 5, 7, dtype=torch.float64)
    for model in (plain, quick):
        (model(first).square().sum() + model(second).square().sum()).backward()
    for (name, got), wanted in zip(quick.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(('kind', 'largest'), [('live', 0.72), ('frozen', 0.62)])
def test_less_is_kept(kind: str, largest: float) -> None:
    """Bytes that autograd keeps, parameters left out."""
    plain = random_network(lambda: Res2Net(depths=(3, 1), base_width=26, scales=4)).float().train(kind == 'live')
    kept = []
    for model in (plain, optimize(copy.deepcopy(plain))):
        own = {parameter.data_ptr() for parameter in model.parameters()}
        stage = nn.Sequential(*model.stage_modules())
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = stage(torch.randn(2, 64, 32, 32).contiguous(memory_format=torch.channels_last))
        assert out.requires_grad
        kept.append(sum(t.untyped_storage().nbytes() for at, t in saved.items() if at not in own))
    assert kept[1] < largest * kept[0]


@pytest.mark.parametrize('kind', KINDS)
def test_second_derivatives_are_refused(kind: str) -> None:
    _, quick = block_twins(kind)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(quick(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_one_value_a_channel() -> None:
    """The error of nn.BatchNorm2d, also where the first norm still has more of them."""
    for side, options in ((1, {}), (2, dict(is_first=True, stride=2, downsample=nn.AvgPool2d(2)))):
        plain = randomise(Bottle2neck(8, 8, **{**dict(width=4, scales=3), **options}))
        quick = optimize(copy.deepcopy(plain))
        x, messages = torch.randn(1, 8, side, side, dtype=torch.float64), []
        for model in (plain, quick):
            with pytest.raises(ValueError, match='Expected more than 1 value per channel when training') as error:
                model(x)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
        for (name, ours), theirs in zip(quick.named_buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize('kind', KINDS)
def test_images_without_batch_are_refused_as_before(kind: str) -> None:
    plain, quick = block_twins(kind)
    for model in (plain, quick):
        with pytest.raises(ValueError, match='expected 4D input'):
            model(torch.randn(6, 5, 7, dtype=torch.float64))


@pytest.mark.parametrize('kind', KINDS)
def test_changed_after_optimize(kind: str, steps: dict[str, int]) -> None:
    """A convolution with a bias, put in later."""
    plain, quick = block_twins(kind)
    for model in (plain, quick):
        torch.manual_seed(2)
        model.conv3 = nn.Conv2d(12, 8, 1).double()
    assert_same_runs(quick, plain, torch.randn(2, 6, 5, 7, dtype=torch.float64))
    assert steps['live'] == 0
