"""Every option of the backbones: what it changes, what it leaves alone, and the one error of each mistake."""

import copy
import math
import subprocess
import sys

import pytest
import torch
import torch.nn as nn
import torchvision
from mmcv.cnn.bricks.conv_ws import ConvWS2d
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as ROOT_MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.compare import assert_same_function, largest_difference, randomise

SMALL = dict(depths=(1, 2, 1, 2), base_width=8)
V1B = dict(SMALL, deep_stem=True, avg_down=True)
BUILDERS = {
    'v1': lambda **kw: Res2Net(**SMALL, **kw),
    'v1b': lambda **kw: Res2Net(**V1B, **kw),
    'next': lambda **kw: Res2Net(depths=(1, 2, 1, 1), base_width=4, cardinality=8, **kw),
    'se': lambda **kw: Res2Net(**SMALL, se_reduction=16, **kw),
    'cifar': lambda **kw: Res2Net('res2next29_6c24w4s', **kw),
    'dla': lambda **kw: Res2NetDLA('res2net_dla60_4s', **kw),
    'dla x': lambda **kw: Res2NetDLA('dla60x', **kw),
}
FAMILIES = pytest.mark.parametrize('build', BUILDERS.values(), ids=BUILDERS)
# What both classes share beyond the constructor is tested on one of each
BOTH = pytest.mark.parametrize('build', [BUILDERS['v1b'], BUILDERS['dla']], ids=['Res2Net', 'Res2NetDLA'])


def build(name, **kwargs):
    return (Res2NetDLA if ARCHS[name].family == 'dla' else Res2Net)(name, **kwargs)


def images(channels=3, size=(64, 64), number=2):
    return torch.randn(number, channels, *size, dtype=torch.float64)


def images_for(model, side=64, number=2):
    """Square images whose features are as small as those of a `side`-pixel image at stride 4."""
    side = side * model.out_strides[0] // 4
    return images(size=(side, side), number=number)


def same_weights(model, other):
    """`other` with the weights of `model`, both in float64."""
    randomise(model)
    other.double().load_state_dict(model.state_dict(), strict=True)
    return model, other


def blocks(model):
    return [m for m in model.modules() if hasattr(m, 'conv1') and hasattr(m, 'conv3')]


def stem_of(model):
    names = ('base_layer', 'level0', 'level1') if isinstance(model, Res2NetDLA) else ('conv1', 'bn1')
    return [model.get_submodule(name) for name in names]


def stages_of(model):
    prefix, first = ('level', 2) if isinstance(model, Res2NetDLA) else ('layer', 1)
    return [m for i in range(4) if (m := getattr(model, f'{prefix}{first + i}', None)) is not None]


def norms_of(modules):
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]


# Which stages are built and given out ---------------------------------------------------------------------------------


@FAMILIES
def test_outputs_are_those_of_the_whole_network_and_later_stages_are_not_built(build):
    whole = randomise(build()).eval()
    x = images_for(whole, 32)
    with torch.no_grad():
        expected = whole(x)
    for indices in ((0,), (0, 1), (1, 2), [len(expected) - 1]):
        part = build(out_indices=indices).double().eval()
        assert len(stages_of(part)) == indices[-1] + 1
        own = set(part.state_dict())
        part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in own}, strict=True)
        with torch.no_grad():
            outs = part(x)
        assert len(outs) == len(indices)
        assert all(torch.equal(out, expected[i]) for out, i in zip(outs, indices, strict=True))
        assert part.out_channels == tuple(whole.out_channels[i] for i in indices)
        assert part.out_strides == tuple(whole.out_strides[i] for i in indices)


@FAMILIES
def test_out_strides_follow_strides_and_sizes_round_up(build):
    model = build().eval()
    height, width = (97, 65) if model.out_strides[0] == 4 else (17, 13)
    with torch.no_grad():
        outs = model(torch.randn(1, 3, height, width))
    for out, channels, stride in zip(outs, model.out_channels, model.out_strides, strict=True):
        assert tuple(out.shape) == (1, channels, math.ceil(height / stride), math.ceil(width / stride))


def test_out_strides_of_given_strides():
    assert Res2Net(**SMALL, strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4)).out_strides == (8, 16, 16, 16)
    assert Res2Net('resnext29_8c64w', strides=(1, 1, 2)).out_strides == (1, 1, 2)


# Gradients and freezing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ARCHS)
def test_every_parameter_gets_a_gradient(name):
    model = build(name)
    model.train()
    outs = model(torch.randn(2, 3, 32, 32))
    assert all(out.isfinite().all() for out in outs)
    outs[-1].square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def expected_frozen(frozen_stages, freeze_stem):
    return frozen_stages >= 0 if freeze_stem is None else freeze_stem


@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize('freeze_stem', [None, False, True])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
@BOTH
def test_freezing(build, frozen_stages, freeze_stem, norm_eval):
    model = build(frozen_stages=frozen_stages, freeze_stem=freeze_stem, norm_eval=norm_eval)
    assert model.eval() is model
    assert model.train() is model
    parts = [(stem_of(model), expected_frozen(frozen_stages, freeze_stem))]
    parts += [([stage], i < frozen_stages) for i, stage in enumerate(stages_of(model))]
    for modules, frozen in parts:
        parameters = [p for m in modules for p in m.parameters()]
        assert {p.requires_grad for p in parameters} == {not frozen}
        assert {m.training for m in norms_of(modules)} == {not (frozen or norm_eval)}


@BOTH
def test_frozen_parts_stay_as_they_are_in_a_training_step(build):
    model = build(frozen_stages=2)
    model.train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    sum(out.square().mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    frozen = {id(t) for m in [*stem_of(model), *stages_of(model)[:2]] for t in [*m.parameters(), *m.buffers()]}
    assert all(p.grad is None for p in model.parameters() if id(p) in frozen)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert torch.equal(tensor, before[name]) is (id(tensor) in frozen), name


@BOTH
def test_norm_eval_holds_statistics_but_not_weights(build):
    model = build(norm_eval=True)
    model.train()
    before = {k: v.clone() for k, v in model.named_buffers()}
    sum(out.mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    assert all(p.grad is not None for p in model.parameters())


@BOTH
def test_norms_train_by_default(build):
    model = build()
    model.train()
    before = {k: v.clone() for k, v in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(v, before[k]) for k, v in model.named_buffers())


# Checkpointing and stochastic depth -----------------------------------------------------------------------------------


@pytest.mark.parametrize('kwargs', [{}, dict(frozen_stages=1), dict(norm_eval=True)], ids=str)
@FAMILIES
def test_checkpointing_is_exact(build, kwargs):
    plain, cheap = same_weights(build(**kwargs), build(with_cp=True, **kwargs))
    x = images_for(plain)
    results = []
    for model in (plain, cheap):
        model.train()
        leaf = x.clone().requires_grad_()
        outs = model(leaf)
        sum((out**2).mean() for out in outs).backward()
        gradients = {k: p.grad for k, p in model.named_parameters() if p.requires_grad}
        results.append((outs, leaf.grad, gradients, dict(model.named_buffers())))
    (outs, gradient, gradients, buffers), cheap_results = results
    assert all(torch.equal(a, b) for a, b in zip(outs, cheap_results[0], strict=True))
    assert torch.equal(gradient, cheap_results[1])
    assert all(torch.equal(gradients[k], cheap_results[2][k]) for k in gradients)
    assert all(torch.equal(buffers[k], cheap_results[3][k]) for k in buffers)  # not counted twice
    assert {norm.momentum for norm in norms_of([cheap])} == {0.1}  # and as they were for the next step


@BOTH
def test_checkpointing_recomputes_blocks(build):
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    for with_cp, per_block in ((False, 1), (True, 2)):
        model = build(with_cp=with_cp)
        model.train()
        found = blocks(model)
        calls = 0
        for block in found:
            block.conv3.register_forward_hook(count)
        model(torch.randn(2, 3, 64, 64))[-1].sum().backward()
        assert calls == per_block * len(found)


def test_checkpointing_repeats_the_same_drops():
    plain, cheap = same_weights(*(Res2Net(**SMALL, drop_path_rate=0.5, with_cp=cp) for cp in (False, True)))
    x = images(number=8)
    gradients = []
    for model in (plain, cheap):
        model.train()
        torch.manual_seed(3)
        model(x)[-1].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all((a is b is None) or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_drop_path_rises_from_none_to_the_rate():
    model = Res2Net(depths=(2, 1, 1, 1), base_width=8, drop_path_rate=0.4)
    assert [getattr(b.drop_path, 'drop_prob', 0.0) for b in blocks(model)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_drop_path_is_nothing_in_eval_and_at_rate_zero(rate):
    plain, dropping = same_weights(Res2Net(**SMALL), Res2Net(**SMALL, drop_path_rate=rate))
    assert_same_function(dropping, plain, images(), modes=['eval', 'train'] if rate == 0 else ['eval'])


def test_drop_path_drops_samples_and_scales_the_others():
    rate, number = 0.4, 2000
    model = randomise(Res2Net(depths=(1, 2), base_width=2, drop_path_rate=rate, norm_eval=True))
    block = model.train().layer2[1]
    x = torch.rand(1, 512, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        branch = block.bn3(block.conv3(block._multi_scale(block.relu(block.bn1(block.conv1(x))))))
        outs = block(x.expand(number, -1, -1, -1))
    kept, dropped = torch.relu(x + branch / (1 - rate)), torch.relu(x)
    is_kept = (outs - kept).abs().amax((1, 2, 3)) < 1e-12
    is_dropped = (outs - dropped).abs().amax((1, 2, 3)) < 1e-12
    assert torch.equal(is_kept, ~is_dropped)
    # four standard deviations of a binomial share
    assert abs(is_dropped.double().mean().item() - rate) < 4 * math.sqrt(rate * (1 - rate) / number)


# Layers by config -----------------------------------------------------------------------------------------------------


@BOTH
def test_group_norm(build):
    model = build(norm_cfg=dict(type='GN', num_groups=2))
    assert not norms_of([model])
    groups = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(groups) == len(norms_of([build()]))
    randomise(model)
    x = images()
    alone = model(x[:1])[-1]
    torch.testing.assert_close(model(x)[-1][:1], alone, rtol=1e-10, atol=1e-10)  # no batch statistics


@BOTH
def test_sync_batch_norm_is_batch_norm_in_one_process(build):
    model = build(norm_cfg=dict(type='SyncBN', requires_grad=True))
    sync = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(sync) == len(norms_of([model])) == len(norms_of([build()]))
    plain, reverted = same_weights(build(), revert_sync_batchnorm(model))
    assert not [m for m in reverted.modules() if isinstance(m, nn.SyncBatchNorm)]
    for m in (plain, reverted):
        m.train()
    x = images()
    assert largest_difference(plain(x), reverted(x)) < 1e-10


@BOTH
def test_norm_cfg_settings_reach_every_norm(build):
    norms = norms_of([build(norm_cfg=dict(type='BN', eps=1e-3, momentum=0.03, requires_grad=False))])
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.03)}
    assert not any(p.requires_grad for n in norms for p in n.parameters())


@FAMILIES
def test_weight_standardisation_by_conv_cfg(build):
    """ConvWS everywhere equals plain convolutions whose weights were standardised beforehand."""
    standard, plain = same_weights(build(conv_cfg=dict(type='ConvWS')), build())
    convs = [m for m in standard.modules() if isinstance(m, nn.Conv2d)]
    attention = [m for name, m in standard.named_modules() if name.endswith(('fc1', 'fc2'))]
    assert all(isinstance(m, ConvWS2d) for m in convs if m not in attention)
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, nn.Conv2d) and not name.endswith(('fc1', 'fc2')):
                flat = module.weight.flatten(1)
                flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
                module.weight.copy_(flat.view_as(module.weight))
        x = images_for(plain)
        assert largest_difference(standard.train()(x), plain.train()(x)) < 1e-9


@FAMILIES
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_input_channels(build, channels):
    model = randomise(build(in_channels=channels)).eval()
    outs = model(images(channels, size=(32, 32)))
    assert [out.shape[1] for out in outs] == list(model.out_channels)
    with pytest.raises(RuntimeError, match=f'to have {channels} channels'):
        model(images(channels + 1, size=(32, 32)))


# Deformable convolutions ----------------------------------------------------------------------------------------------

DCN = {'DCN': (DeformConv2dPack, 1.0), 'DCNv2': (ModulatedDeformConv2dPack, 0.5)}  # type: (class, mask at start)


def deformable(module):
    return [m for m in module.modules() if isinstance(m, DeformConv2dPack | ModulatedDeformConv2dPack)]


@pytest.mark.parametrize('options', [SMALL, dict(depths=(1, 1, 1, 2), base_width=4, cardinality=8)], ids=['v1', 'next'])
@pytest.mark.parametrize('kind', DCN)
def test_deformable_convolutions_start_as_plain_ones(kind, options):
    """Offsets start at zero, and DCNv2's mask at sigmoid(0): the layer is a plain convolution times one half."""
    layer, mask = DCN[kind]
    stages = (False, True, True, True)
    model = Res2Net(**options, dcn=dict(type=kind, deform_groups=1), stage_with_dcn=stages)
    model.init_weights()
    plain = Res2Net(**options)
    assert [len(deformable(stage)) for stage in stages_of(model)] == [
        used * 3 * depth for used, depth in zip(stages, options['depths'], strict=True)
    ]
    assert all(type(m) is layer for m in deformable(model))
    weights = {k: v for k, v in model.state_dict().items() if 'conv_offset' not in k}
    for name in weights:
        if '.convs.' in name and not name.startswith('layer1.'):
            weights[name] = weights[name] * mask
    plain.load_state_dict(weights, strict=True)
    x = images(size=(96, 96))  # mmcv's DCN refuses maps smaller than its kernel
    with torch.no_grad():
        outs, expected = model.double().eval()(x), plain.double().eval()(x)
    assert largest_difference(outs, expected) < 1e-10 * max(1, expected[-1].abs().max().item())


def test_deformable_convolutions_learn_offsets():
    model = Res2Net(**SMALL, dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, False, True))
    model.init_weights()
    model.train()
    sum(out.square().mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(m.conv_offset.bias.grad.abs().max() > 0 for m in deformable(model))
    with torch.no_grad():
        before = model.eval()(torch.ones(1, 3, 64, 64))[-1]
        for m in deformable(model):
            m.conv_offset.bias.normal_()
        assert (model(torch.ones(1, 3, 64, 64))[-1] - before).abs().max() > 1e-3


def test_deformable_convolutions_fall_back_where_strided():
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    model = Res2Net(**SMALL, dcn=dcn, stage_with_dcn=(True, True, True, True))
    for name, module in model.named_modules():
        if name.split('.')[-2:-1] == ['convs']:
            assert isinstance(module, ModulatedDeformConv2dPack) is (module.stride in (1, (1, 1))), name
    assert {tuple(b.convs[0].stride) for b in blocks(model) if not deformable(b)} == {(2, 2)}


def test_deformable_convolutions_keep_dilation():
    dcn = dict(type='DCN', deform_groups=1)
    model = Res2Net(**SMALL, output_stride=16, dcn=dcn, stage_with_dcn=(False, False, False, True))
    assert [tuple(m.dilation) for m in deformable(model)] == [(1, 1)] * 3 + [(2, 2)] * 3


def test_deformable_convolutions_need_no_import_by_the_user():
    code = (
        'from mmres2net.models import Res2Net\n'
        "Res2Net('res2net50_26w_4s', dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, True, True, True))"
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Plugins --------------------------------------------------------------------------------------------------------------


@ROOT_MODELS.register_module(force=True)
class TimesTwo(nn.Module):
    """A plugin whose effect can be told from the weights of its neighbours."""

    def __init__(self, in_channels: int, offset: float = 0.0) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.offset = offset

    def forward(self, x):
        return 2 * x + self.offset


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
def test_plugin_positions(position):
    """Doubling after a position equals doubling what the neighbouring layer gives."""
    plugin = dict(cfg=dict(type='TimesTwo'), stages=(False, True, False, True), position=position)
    model, plain = same_weights(Res2Net(**SMALL, plugins=[plugin]), Res2Net(**SMALL))
    with torch.no_grad():
        for stage in (plain.layer2, plain.layer4):
            for block in stage:
                if position == 'after_conv1':  # the ReLU passes a positive factor on
                    block.bn1.weight.mul_(2)
                    block.bn1.bias.mul_(2)
                elif position == 'after_conv2':
                    block.conv3.weight.mul_(2)
                else:  # after the norm, before the addition
                    block.bn3.weight.mul_(2)
                    block.bn3.bias.mul_(2)
        x = images()
        assert largest_difference(model.eval()(x), plain.eval()(x)) < 1e-10


def test_plugins_see_the_channels_of_their_position_and_stages_default_to_all():
    def at(position):
        return dict(cfg=dict(type='TimesTwo'), position=position)

    model = Res2Net('res2net50_26w_4s', plugins=[at('after_conv1'), at('after_conv2'), at('after_conv3')])
    found = [m.in_channels for m in model.layer2[0].modules() if isinstance(m, TimesTwo)]
    assert found == [52 * 4, 52 * 4, 512]
    assert len([m for m in model.modules() if isinstance(m, TimesTwo)]) == 16 * 3


def test_two_plugins_at_one_position_run_in_their_order():
    plugins = [
        dict(cfg=dict(type='TimesTwo', offset=1.0, postfix='_a'), position='after_conv3'),
        dict(cfg=dict(type='TimesTwo', offset=3.0, postfix='_b'), position='after_conv3'),
    ]
    block = randomise(Res2Net(depths=(2,), base_width=8, plugins=plugins)).eval().layer1[1]
    x = torch.rand(1, 256, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        branch = block.bn3(block.conv3(block._multi_scale(block.relu(block.bn1(block.conv1(x))))))
        torch.testing.assert_close(block(x), torch.relu(x + 2 * (2 * branch + 1) + 3), rtol=1e-12, atol=1e-12)


def test_context_block_of_mmcv():
    plugin = dict(cfg=dict(type='ContextBlock', ratio=1 / 16), stages=(False, True, True, True), position='after_conv3')
    model = Res2Net(**SMALL, plugins=[plugin])
    model.train()
    names = {n for n, _ in model.named_parameters() if 'context_block' in n}
    assert not [n for n in names if n.startswith('layer1')]
    assert len([n for n in names if n.endswith('conv_mask.weight')]) == sum(SMALL['depths'][1:])
    randomise(model)
    model(images())[-1].square().mean().backward()
    # a bias before a softmax over positions moves nothing
    without = {n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-20}
    assert all(n.endswith('conv_mask.bias') for n in without)


# Initialisation -------------------------------------------------------------------------------------------------------


@FAMILIES
def test_default_initialisation(build):
    """Kaiming normal by fan out (He et al. 2015), norms at one and zero."""
    model = build()
    model.init_weights()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            ratio = module.weight.std().item() / math.sqrt(2 / fan_out)
            assert abs(ratio - 1) < 5 / math.sqrt(2 * module.weight.numel()) + 0.005, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, _BatchNorm):
            assert (module.weight == 1).all(), name
            assert not module.bias.any(), name


def test_zero_init_residual_starts_blocks_as_their_shortcut():
    for zero in (False, True):
        model = Res2Net(**SMALL, zero_init_residual=zero)
        model.init_weights()
        assert {b.bn3.weight.abs().max().item() for b in blocks(model)} == {0.0 if zero else 1.0}
        assert {b.bn1.weight.min().item() for b in blocks(model)} == {1.0}
        x = torch.rand(2, 512, 8, 8)
        assert torch.equal(model.layer2[1].eval()(x), x) is zero


@pytest.mark.parametrize('kind', ['Pretrained', 'list'])
@pytest.mark.parametrize('prefix', [None, 'backbone.'])
@BOTH
def test_pretrained_weights_from_a_file(tmp_path, build, prefix, kind):
    source = randomise(build(), seed=5).float()
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict={(prefix or '') + k: v for k, v in source.state_dict().items()}), path)
    cfg = dict(type='Pretrained', checkpoint=str(path), **(dict(prefix=prefix) if prefix else {}))
    model = build(init_cfg=cfg if kind == 'Pretrained' else [dict(type='Kaiming', layer='Conv2d'), cfg])
    model.init_weights()
    expected = source.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_pretrained_weights_win_over_zero_init_residual(tmp_path):
    source = randomise(Res2Net(**SMALL)).float()
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    model = Res2Net(**SMALL, zero_init_residual=True, init_cfg=cfg)
    model.init_weights()
    assert torch.equal(model.layer1[0].bn3.weight, source.layer1[0].bn3.weight)


def test_offsets_start_at_zero_beside_pretrained_weights(tmp_path):
    """A checkpoint without offsets, as published ones are, leaves a plain grid."""
    torch.save(Res2Net(**SMALL).state_dict(), tmp_path / 'weights.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    model = Res2Net(
        **SMALL,
        dcn=dict(type='DCNv2', deform_groups=1),
        stage_with_dcn=(False, True, True, True),
        init_cfg=cfg,
    )
    model.init_weights()
    assert not any(p.any() for m in deformable(model) for p in m.conv_offset.parameters())


@BOTH
def test_seed_decides_the_weights(build):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build()
        model.init_weights()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


# Identities -----------------------------------------------------------------------------------------------------------


def test_one_split_is_a_plain_resnet():
    """scales=1, base width 64 and cardinality 1 is ResNet-50: torchvision's, an unrelated implementation."""
    other = randomise(torchvision.models.resnet50(weights=None))
    rename = {'convs.0.': 'conv2.', 'bns.0.': 'bn2.'}

    def theirs(name):
        for ours, their in rename.items():
            name = name.replace(ours, their)
        return name

    model = Res2Net(depths=(3, 4, 6, 3), base_width=64, scales=1).double()
    state = other.state_dict()
    model.load_state_dict({k: state[theirs(k)] for k in model.state_dict()}, strict=True)

    def run(x):
        x = other.maxpool(other.relu(other.bn1(other.conv1(x))))
        outs = []
        for stage in (other.layer1, other.layer2, other.layer3, other.layer4):
            x = stage(x)
            outs.append(x)
        return outs

    assert_same_function(model, other, images(size=(33, 49)), run_theirs=run, rename=theirs)


@pytest.mark.parametrize('size', [(64, 96), (72, 104), (65, 97)], ids=str)
@pytest.mark.parametrize('family', ['v1', 'v1b', 'next', 'dla', 'dla x'])  # not SE: it averages over all pixels
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilated_network_contains_the_strided_one(output_stride, family, size):
    """What `output_stride` is for: every other pixel of the dense features is the strided network's, exactly.

    At 1/8 this ends before the last stage, whose pools stay 3x3 or 2x2 on the denser grid (as timm's do). The shortcut
    of v1b averages a window cut off at an odd edge otherwise (as timm's does), so its sizes must be even.
    """
    if family == 'v1b':
        size = (size[0] // 32 * 32, size[1] // 32 * 32)
    strided, dense = same_weights(BUILDERS[family](), BUILDERS[family](output_stride=output_stride))
    assert dense.out_strides == tuple(min(s, output_stride) for s in strided.out_strides)
    x = images(size=size, number=1)
    with torch.no_grad():
        outs, expected = dense.eval()(x), strided.eval()(x)
    for i in range(3 if output_stride == 8 else 4):
        step = strided.out_strides[i] // dense.out_strides[i]
        torch.testing.assert_close(outs[i][..., ::step, ::step], expected[i], rtol=1e-12, atol=1e-12)


@FAMILIES
def test_same_input_same_output(build):
    model = randomise(build()).eval()
    x = images_for(model)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), model(x), strict=True))


@FAMILIES
def test_channels_last_equals_contiguous(build):
    model, other = same_weights(build(), build())
    other = other.to(memory_format=torch.channels_last)
    x = images_for(model)
    with torch.no_grad():
        outs = model.eval()(x)
        last = other.eval()(x.to(memory_format=torch.channels_last))
    assert largest_difference(outs, last) < 1e-10 * max(1, outs[-1].abs().max().item())
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in last)


def test_channels_last_equals_contiguous_with_deformable_convolutions():
    kwargs = dict(SMALL, dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, True, True, True))
    model, other = same_weights(Res2Net(**kwargs), Res2Net(**kwargs))
    other = other.to(memory_format=torch.channels_last)
    x = images()
    with torch.no_grad():
        outs = model.eval()(x)
        last = other.eval()(x.to(memory_format=torch.channels_last))
    assert largest_difference(outs, last) < 1e-10 * max(1, outs[-1].abs().max().item())


# Copies for deployment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('with_cp', [False, True])
@FAMILIES
def test_traced_copy_equals_eager_at_other_sizes(build, with_cp):
    model = randomise(build(with_cp=with_cp)).eval()
    traced = torch.jit.trace(model, images_for(model, 32, number=1), check_trace=False)
    x = images_for(model, 64)
    with torch.no_grad():
        assert largest_difference(traced(x), model(x)) < 1e-12


@BOTH
def test_exported_copy_equals_eager_at_other_sizes(build):
    model = randomise(build(with_cp=True)).eval()
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    with torch.no_grad():
        exported = torch.export.export(model, (images(),), dynamic_shapes=shapes).module()
        x = images(size=(96, 128), number=3)
        assert largest_difference(exported(x), model(x)) < 1e-12


@BOTH
def test_one_graph_for_the_compiler(build):
    model = randomise(build()).eval()
    x = images()
    with torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        assert largest_difference(compiled(x), model(x)) < 1e-12


# Mistakes -------------------------------------------------------------------------------------------------------------

ROW = dict(arch='res2net50_26w_4s')
PLUGIN = dict(cfg=dict(type='TimesTwo'), position='after_conv3')
DCN_V2 = dict(type='DCNv2', deform_groups=1)

# (options of Res2Net, parts of the message: the value, and what is allowed or the way out)
MISTAKES = [
    (dict(arch='res2net51'), ["'res2net51'", 'res2net50']),
    (dict(arch=50), ['50', 'res2net50_26w_4s']),
    (dict(), ['arch', 'depths', 'res2net50_26w_4s']),
    (dict(arch='dla60'), ['Res2NetDLA']),
    (dict(ROW, depths=(3, 4, 6, 3)), ['res2net50_26w_4s', 'depths', 'leave out']),
    (dict(ROW, scales=4), ['res2net50_26w_4s', 'scales', 'leave out']),
    (dict(depths=()), ['depths', '()', '1 to 4']),
    (dict(depths=(3, 4, 0, 3)), ['depths[2]=0', '1 or more']),
    (dict(depths=(1, 1, 1, 1, 1)), ['depths', '5 stages', '1 to 4']),
    (dict(depths=4), ['depths=4', 'list or tuple']),
    (dict(depths=(1, 1), scales=0), ['scales=0', '1 or more']),
    (dict(depths=(1, 1), base_width=2.5), ['base_width=2.5', 'whole number']),
    (dict(depths=(1, 1), cardinality=True), ['cardinality=True', 'whole number']),
    (dict(ROW, se_reduction=0), ['se_reduction=0', '1 or more']),
    (dict(ROW, se_reduction=512), ['se_reduction=512', '256']),
    (dict(ROW, in_channels=0), ['in_channels=0', '1 or more']),
    (dict(ROW, out_indices=(0, 4)), ['(0, 4)', '(0, 1, 2, 3)']),
    (dict(ROW, out_indices=(-1,)), ['-1', '0 or more']),
    (dict(ROW, out_indices=(1, 1)), ['(1, 1)', 'each once']),
    (dict(ROW, out_indices=(2, 1)), ['(2, 1)', 'ascending']),
    (dict(ROW, out_indices=()), ['()', 'at least one']),
    (dict(ROW, out_indices=3), ['out_indices=3', 'list or tuple']),
    (dict(arch='resnext29_8c64w', out_indices=(3,)), ['(3,)', '(0, 1, 2)']),
    (dict(ROW, strides=(1, 2, 2)), ['strides', '(1, 2, 2)', '4 stages']),
    (dict(ROW, strides=(1, 2, 0, 1)), ['strides[2]=0', '1 or more']),
    (dict(ROW, dilations=(1, 1, 2, 4, 8)), ['dilations', '(1, 1, 2, 4, 8)', '4 stages']),
    (dict(ROW, dilations=(1, 1, 1, 0)), ['dilations[3]=0', '1 or more']),
    (dict(ROW, dilations=(1, 1, 1, 1.5)), ['dilations[3]=1.5', 'whole number']),
    (dict(ROW, output_stride=4), ['output_stride=4', '(8, 16, 32)']),
    (dict(ROW, output_stride=16, strides=(1, 2, 2, 1)), ['output_stride=16', 'strides', 'leave']),
    (dict(ROW, output_stride=16, dilations=(1, 1, 1, 2)), ['output_stride=16', 'dilations', 'leave']),
    (dict(arch='resnext29_8c64w', output_stride=8), ['output_stride=8', 'four stages', 'strides and dilations']),
    (dict(ROW, multi_grid=(1, 2)), ['(1, 2)', '3 blocks']),
    (dict(ROW, multi_grid=(1, 2, 0)), ['multi_grid[2]=0', '1 or more']),
    (dict(ROW, multi_grid=(1, 2, 4), out_indices=(0, 1)), ['(1, 2, 4)', 'out_indices']),
    (dict(ROW, stage_pool='timm'), ["'timm'", "('official', 'mmdet', 'maskrcnn')"]),
    (dict(ROW, frozen_stages=5), ['frozen_stages=5', '-1', '4']),
    (dict(ROW, frozen_stages=-2), ['frozen_stages=-2', '-1', '4']),
    (dict(ROW, frozen_stages=3, out_indices=(0, 1)), ['frozen_stages=3', '2']),
    (dict(ROW, frozen_stages=True), ['frozen_stages=True', '-1', '4']),
    (dict(ROW, drop_path_rate=1.0), ['drop_path_rate=1.0', 'less than 1']),
    (dict(ROW, drop_path_rate=-0.1), ['drop_path_rate=-0.1', 'at least 0']),
    (dict(ROW, dcn=DCN_V2), ['stage_with_dcn=None', 'DCNv2', '4 stages']),
    (dict(ROW, dcn=DCN_V2, stage_with_dcn=(True,)), ['stage_with_dcn=(True,)', '4 stages']),
    (dict(ROW, dcn=DCN_V2, stage_with_dcn=(False,) * 4), ['DCNv2', 'at least one']),
    (dict(ROW, stage_with_dcn=(False, True, True, True)), ['dcn=None', 'go together']),
    (dict(ROW, plugins=[dict(PLUGIN, position='after_conv4')]), ["'after_conv4'", "'after_conv3'"]),
    (dict(ROW, plugins=[dict(PLUGIN, stages=(True, False))]), ['(True, False)', '4 stages']),
    (dict(ROW, plugins=[dict(PLUGIN, stage=(True,) * 4)]), ["'stage'", 'stages']),
    (dict(ROW, plugins=[dict(position='after_conv3')]), ['must have cfg']),
    (dict(ROW, norm_cfg=dict(type='GN', num_groups=32)), ['32 groups', '26', 'num_groups']),
]


@pytest.mark.parametrize(('options', 'parts'), MISTAKES, ids=[str(options) for options, _ in MISTAKES])
def test_mistakes_name_the_value_and_what_is_allowed(options, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        Res2Net(**options)
    assert [part for part in parts if part not in str(caught.value)] == []


DLA_MISTAKES = [
    (dict(arch='res2net50_26w_4s'), ['res2net50_26w_4s', 'mmres2net.Res2Net']),
    (dict(arch='dla61'), ["'dla61'", 'dla60']),
    (dict(arch='dla60', out_indices=(4,)), ['(4,)', '(0, 1, 2, 3)']),
    (dict(arch='dla60', output_stride=64), ['output_stride=64', '(8, 16, 32)']),
    (dict(arch='dla60', frozen_stages=5), ['frozen_stages=5', '4']),
    (dict(arch='dla60', in_channels=-3), ['in_channels=-3', '1 or more']),
    (dict(arch='dla60', norm_cfg=dict(type='GN', num_groups=32)), ['32 groups', '16', 'num_groups']),
]


@pytest.mark.parametrize(('options', 'parts'), DLA_MISTAKES, ids=[str(options) for options, _ in DLA_MISTAKES])
def test_mistakes_with_dla_name_the_value_and_what_is_allowed(options, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        Res2NetDLA(**options)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize('keyword', ['style', 'depth', 'num_stages', 'pretrained'])
@BOTH
def test_unknown_keywords_are_errors(build, keyword):
    with pytest.raises(TypeError, match=keyword):
        build(**{keyword: 'pytorch'})


def test_options_are_keywords_only():
    with pytest.raises(TypeError, match='positional'):
        Res2Net('res2net50_26w_4s', (3, 4, 6, 3))
    with pytest.raises(TypeError, match='positional'):
        Res2NetDLA('dla60', 3)


def test_configs_passed_in_are_left_alone():
    config = dict(
        SMALL,
        norm_cfg=dict(type='BN', eps=1e-3, requires_grad=True),
        conv_cfg=dict(type='Conv2d'),
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=True),
        stage_with_dcn=[False, True, True, True],
        plugins=[dict(cfg=dict(type='TimesTwo', postfix='_a'), stages=[True] * 4, position='after_conv2')],
        out_indices=[0, 1, 2, 3],
        strides=[1, 2, 2, 1],
        dilations=[1, 1, 1, 2],
        multi_grid=[2, 4],
        init_cfg=[dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='_BatchNorm')],
    )
    before = copy.deepcopy(config)
    models = [Res2Net(**config) for _ in range(2)]
    for model in models:
        model.init_weights()
    assert config == before
    assert [n for n, _ in models[0].named_modules()] == [n for n, _ in models[1].named_modules()]
