"""What every family of networks has to pass; a new family is one line in `families.py`."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from mmres2net.deploy import fuse
from mmres2net.models import Res2Net
from tests.models.families import BACKBONES, FAMILIES, blocks, images_for, norms_of, same_weights, stages_of, stem_of
from tests.reference.compare import largest_difference, randomise


@dataclass
class Family:
    """A family, its network with random weights in float64, images, and the features of these."""

    build: Callable[..., nn.Module]
    network: nn.Module
    x: Tensor
    outs: tuple[Tensor, ...]


@cache
def family_of(name: str) -> Family:
    network = randomise(FAMILIES[name]()).eval()
    x = images_for(network)
    with torch.no_grad():
        return Family(FAMILIES[name], network, x, network(x))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn; tests copy the network to change it."""
    return family_of(request.param)


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> Family:
    """Each family whose stages can be chosen and frozen."""
    return family_of(request.param)


ONE_EACH = pytest.mark.parametrize('build', [FAMILIES['v1b'], FAMILIES['dla']], ids=['Res2Net', 'Res2NetDLA'])


def test_every_parameter_gets_a_gradient_and_norms_train(family: Family) -> None:
    model = copy.deepcopy(family.network).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(family.x)[-1].square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert not [name for name, value in model.named_buffers() if torch.equal(value, before[name])]


def test_channels_last_equals_contiguous(family: Family) -> None:
    model = copy.deepcopy(family.network).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outs = model(family.x.contiguous(memory_format=torch.channels_last))
    assert largest_difference(outs, family.outs) < 1e-10 * max(1, family.outs[-1].abs().max().item())
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in outs)


@pytest.mark.parametrize('name', ['v1', 'v1b', 'next', 'se', 'cifar', 'dla', 'dense'])
def test_with_cp_is_exact(name: str) -> None:
    """Outputs, gradients and statistics, also with frozen stages; each block is computed twice."""
    family = family_of(name)
    for options in [{}, dict(frozen_stages=1)] if name in ('v1', 'dla') else [{}]:
        plain, cheap = same_weights(family.build(**options), family.build(with_cp=True, **options))
        results, calls = [], []
        for block in blocks(cheap):
            block.conv3.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for model in (plain, cheap):
            leaf = family.x.clone().requires_grad_()
            outs = model.train()(leaf)
            sum((out**2).mean() for out in outs).backward()
            gradients = [p.grad for p in model.parameters() if p.requires_grad]
            results.append([*outs, leaf.grad, *gradients, *model.buffers()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        assert {norm.momentum for norm in norms_of(cheap)} == {0.1}
        if not options:
            assert len(calls) == 2 * len(blocks(cheap))


def test_no_tensor_is_made_on_another_device(family: Family) -> None:
    """On tensors without memory, which need no GPU; operations on tensors of two devices fail as they would there."""
    with FakeTensorMode(), torch.no_grad():
        with torch.device('cuda'):
            model, x = family.build(), torch.empty(2, 3, 64, 64)
        for training in (True, False):
            assert {out.device.type for out in model.train(training)(x)} == {'cuda'}


def test_initial_weights(family: Family) -> None:
    """Kaiming normal by fan out (He et al. 2015), norms at one and zero; a seed decides them."""
    torch.manual_seed(1)
    model = family.build()
    model.init_weights()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            ratio = module.weight.std().item() / math.sqrt(2 / fan_out)
            assert abs(ratio - 1) < 5 / math.sqrt(2 * module.weight.numel()) + 0.005, name
            assert module.bias is None or not module.bias.any(), name
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms_of(model))
    torch.manual_seed(1)
    again = family.build()
    again.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_outputs_of_fewer_stages(backbone: Family) -> None:
    """They are those of the complete network, and later stages are not built."""
    for indices in ((0,), (0, 1), (1, 2), [len(backbone.outs) - 1]):
        part = backbone.build(out_indices=indices).double().eval()
        assert len(stages_of(part)) == indices[-1] + 1
        own = set(part.state_dict())
        part.load_state_dict({k: v for k, v in backbone.network.state_dict().items() if k in own}, strict=True)
        with torch.no_grad():
            outs = part(backbone.x)
        assert all(torch.equal(out, backbone.outs[i]) for out, i in zip(outs, indices, strict=True))
        assert part.out_channels == tuple(backbone.network.out_channels[i] for i in indices)
        assert part.out_strides == tuple(backbone.network.out_strides[i] for i in indices)


@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 3])
def test_freezing(backbone: Family, frozen_stages: int, norm_eval: bool) -> None:
    model = backbone.build(frozen_stages=frozen_stages, norm_eval=norm_eval)
    assert model.eval() is model
    assert model.train() is model
    parts = [(stem_of(model), frozen_stages >= 0)]
    parts += [([stage], i < frozen_stages) for i, stage in enumerate(stages_of(model))]
    for modules, frozen in parts:
        assert {p.requires_grad for m in modules for p in m.parameters()} == {not frozen}
        assert {m.training for m in norms_of(*modules)} == {not (frozen or norm_eval)}


@pytest.mark.parametrize('channels', [1, 4])
def test_input_channels(backbone: Family, channels: int) -> None:
    model = randomise(backbone.build(in_channels=channels)).eval()
    assert [out.shape[1] for out in model(torch.rand(2, channels, 32, 32).double())] == list(model.out_channels)
    with pytest.raises(RuntimeError, match=f'to have {channels} channels'):
        model(torch.rand(2, channels + 1, 32, 32).double())


def test_norm_cfg_reaches_every_norm(backbone: Family) -> None:
    norms = norms_of(backbone.build(norm_cfg=dict(type='BN', eps=1e-3, momentum=0.03, requires_grad=False)))
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.03)}
    assert not any(p.requires_grad for n in norms for p in n.parameters())


@pytest.mark.parametrize(
    'cfg', [dict(type='GN', num_groups=2), dict(type='mmres2net.GCDGroupNorm')], ids=lambda c: c['type']
)
def test_group_norm_has_no_batch_statistics(backbone: Family, cfg: dict) -> None:
    model = backbone.build(norm_cfg=cfg)
    groups = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert (len(groups), norms_of(model)) == (len(norms_of(backbone.network)), [])
    assert {m.num_groups == math.gcd(cfg.get('num_groups', 32), m.num_channels) for m in groups} == {True}
    model.init_weights()
    model.double().train()
    alone = model(backbone.x[:1])[-1]
    torch.testing.assert_close(model(backbone.x)[-1][:1], alone, rtol=1e-10, atol=1e-10)


@ONE_EACH
def test_sync_batch_norm_is_batch_norm_in_one_process(build: Callable[..., nn.Module]) -> None:
    model = build(norm_cfg=dict(type='SyncBN', requires_grad=True))
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms_of(model))
    plain, reverted = same_weights(build(), revert_sync_batchnorm(model))
    assert largest_difference(plain.train()(x := images_for(plain)), reverted.train()(x)) < 1e-10


def test_weight_standardization_by_conv_cfg(backbone: Family) -> None:
    """ConvWS equals plain convolutions whose weights were standardized, in all but squeeze-and-excitation."""
    standard, plain = same_weights(backbone.build(conv_cfg=dict(type='ConvWS')), backbone.build())
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, nn.Conv2d) and not name.endswith(('fc1', 'fc2')):
                flat = module.weight.flatten(1)
                flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
                module.weight.copy_(flat.view_as(module.weight))
        assert largest_difference(standard.train()(backbone.x), plain.train()(backbone.x)) < 1e-9


def test_traced_copy_at_other_sizes_and_fused_copy(family: Family) -> None:
    traced = torch.jit.trace(family.network, images_for(family.network, 32, number=1), check_trace=False)
    fused = fuse(family.network)
    with torch.no_grad():
        assert largest_difference(traced(family.x), family.outs) < 1e-12
        assert largest_difference(fused(family.x), family.outs) < 1e-9 * family.outs[-1].abs().max().item()


@pytest.mark.parametrize('build', [lambda **kw: Res2Net(depths=(2,), base_width=4, **kw), FAMILIES['dense']])
def test_with_cp_can_be_compiled(build: Callable[..., nn.Module]) -> None:
    """Gradients and statistics of a compiled step are those of a plain one; statistics are counted once."""
    plain, cheap = same_weights(build(), build(with_cp=True))
    x = images_for(plain, 32)
    results = []
    for model, run in ((plain, plain), (cheap, torch.compile(cheap, backend='aot_eager'))):
        run.train()
        sum(out.square().mean() for out in run(x)).backward()
        results.append([*(p.grad for p in model.parameters()), *model.buffers()])
    assert largest_difference(*results) < 1e-9
