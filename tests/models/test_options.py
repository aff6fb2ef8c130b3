"""Options of one family: stochastic depth, deformable convolutions, plugins, zero initialization; and wrong values."""

import copy
import math

import pytest
import torch
import torch.nn as nn
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmengine.registry import MODELS as ROOT_MODELS

from mmres2net.models import Res2Net, Res2NetDLA
from tests.models.families import SMALL, blocks, images, same_weights, stages_of
from tests.reference.compare import assert_same_function, largest_difference, randomise


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


def test_drop_path_rises_from_none_to_the_rate_and_is_nothing_in_evaluation():
    model = Res2Net(depths=(2, 1, 1, 1), base_width=8, drop_path_rate=0.4)
    assert [getattr(b.drop_path, 'drop_prob', 0.0) for b in blocks(model)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    plain, dropping = same_weights(Res2Net(depths=(2, 1, 1, 1), base_width=8), model)
    assert_same_function(dropping, plain, images(), modes=['eval'])


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


DCN = {'DCN': (DeformConv2dPack, 1.0), 'DCNv2': (ModulatedDeformConv2dPack, 0.5)}  # type: (class, mask at start)


def deformable(module):
    return [m for m in module.modules() if isinstance(m, DeformConv2dPack | ModulatedDeformConv2dPack)]


@pytest.mark.parametrize('options', [SMALL, dict(depths=(1, 1, 1, 2), base_width=4, cardinality=8)], ids=['v1', 'next'])
@pytest.mark.parametrize('kind', DCN)
def test_deformable_convolutions_start_as_plain_ones(kind, options, tmp_path):
    """Offsets start at zero, and DCNv2's mask at sigmoid(0): the layer is a plain convolution times one half."""
    layer, mask = DCN[kind]
    stages = (False, True, True, True)
    plain = Res2Net(**options)
    torch.save(plain.state_dict(), tmp_path / 'weights.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    dcn = dict(dcn=dict(type=kind, deform_groups=1), stage_with_dcn=stages)
    for init_cfg in (pretrained, None):
        model = Res2Net(**options, **dcn, init_cfg=init_cfg)
        model.init_weights()
        assert not any(p.any() for m in deformable(model) for p in m.conv_offset.parameters())
    assert [len(deformable(stage)) for stage in stages_of(model)] == [
        used * 3 * depth for used, depth in zip(stages, options['depths'], strict=True)
    ]
    assert all(type(m) is layer for m in deformable(model))
    weights = {k: v for k, v in model.state_dict().items() if 'conv_offset' not in k}
    for name in weights:
        if '.convs.' in name and not name.startswith('layer1.'):
            weights[name] = weights[name] * mask
    plain.load_state_dict(weights, strict=True)
    x = images(size=(96, 96), number=1)  # mmcv's DCN refuses maps smaller than its kernel
    with torch.no_grad():
        outs, expected = model.double().eval()(x), plain.double().eval()(x)
    assert largest_difference(outs, expected) < 1e-10 * max(1, expected[-1].abs().max().item())


def test_deformable_convolutions_fall_back_where_strided_and_keep_dilation():
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=True)
    model = Res2Net(**SMALL, dcn=dcn, stage_with_dcn=(True, True, True, True))
    dilated = Res2Net(**SMALL, dcn=dict(dcn), output_stride=16, stage_with_dcn=(False, False, False, True))
    assert [tuple(m.dilation) for m in deformable(dilated)] == [(1, 1)] * 3 + [(2, 2)] * 3
    for name, module in model.named_modules():
        if name.split('.')[-2:-1] == ['convs']:
            assert isinstance(module, ModulatedDeformConv2dPack) is (module.stride in (1, (1, 1))), name
    assert {tuple(b.convs[0].stride) for b in blocks(model) if not deformable(b)} == {(2, 2)}


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
                if position == 'after_conv2':
                    block.conv3.weight.mul_(2)
                    continue
                norm = block.bn1 if position == 'after_conv1' else block.bn3  # ReLU passes a positive factor on
                norm.weight.mul_(2)
                norm.bias.mul_(2)
        x = images()
        assert largest_difference(model.eval()(x), plain.eval()(x)) < 1e-10


def test_plugins_see_the_channels_of_their_position_and_stages_default_to_all():
    plugins = [dict(cfg=dict(type='TimesTwo'), position=f'after_conv{i}') for i in (1, 2, 3)]
    model = Res2Net('res2net50_26w_4s', plugins=plugins)
    found = [m.in_channels for m in model.layer2[0].modules() if isinstance(m, TimesTwo)]
    assert found == [52 * 4, 52 * 4, 512]
    assert len([m for m in model.modules() if isinstance(m, TimesTwo)]) == 16 * 3


def test_zero_init_residual_starts_blocks_as_their_shortcut_and_out_strides_of_given_strides():
    assert Res2Net(**SMALL, strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4)).out_strides == (8, 16, 16, 16)
    assert Res2Net(depths=(1, 1, 1), family='cifar', strides=(1, 1, 2)).out_strides == (1, 1, 2)
    for zero in (False, True):
        model = Res2Net(**SMALL, zero_init_residual=zero)
        model.init_weights()
        assert {b.bn3.weight.abs().max().item() for b in blocks(model)} == {0.0 if zero else 1.0}
        x = torch.rand(2, 512, 8, 8)
        assert torch.equal(model.layer2[1].eval()(x), x) is zero


ROW = dict(arch='res2net50_26w_4s')
PLUGIN = dict(cfg=dict(type='TimesTwo'), position='after_conv3')
DCN_V2 = dict(type='DCNv2', deform_groups=1)

# (options of Res2Net, parts of the message: the value, and what is allowed or the way out)
MISTAKES = [
    (dict(arch='res2net51'), ["'res2net51'", 'res2net50']), (dict(arch=50), ['50', 'res2net50_26w_4s']),
    (dict(), ['arch', 'depths', 'res2net50_26w_4s']), (dict(arch='dla60'), ['Res2NetDLA']),
    (dict(ROW, depths=(3, 4, 6, 3)), ['res2net50_26w_4s', 'depths', 'leave out']),
    (dict(depths=()), ['depths', '()', '1 to 4']), (dict(depths=(3, 4, 0, 3)), ['depths[2]=0', '1 or more']),
    (dict(depths=4), ['depths=4', 'list or tuple']), (dict(depths=(1, 1), scales=0), ['scales=0', '1 or more']),
    (dict(depths=(1, 1), base_width=2.5), ['base_width=2.5', 'whole number']),
    (dict(ROW, se_reduction=0), ['se_reduction=0', '1 or more']),
    (dict(ROW, se_reduction=512), ['se_reduction=512', '256']),
    (dict(ROW, in_channels=0), ['in_channels=0', '1 or more']),
    (dict(ROW, base_channels=2), ['base_channels=2', '3 or more']),
    (dict(ROW, out_indices=(0, 4)), ['(0, 4)', '(0, 1, 2, 3)']),
    (dict(ROW, out_indices=(1, 1)), ['(1, 1)', 'each once']), (dict(ROW, out_indices=(2, 1)), ['(2, 1)', 'ascending']),
    (dict(ROW, out_indices=()), ['()', 'at least one']), (dict(ROW, out_indices=3), ['out_indices=3', 'list or tuple']),
    (dict(arch='resnext29_8c64w', out_indices=(3,)), ['(3,)', '(0, 1, 2)']),
    (dict(ROW, strides=(1, 2, 2)), ['strides', '(1, 2, 2)', '4 stages']),
    (dict(ROW, dilations=(1, 1, 1, 0)), ['dilations[3]=0', '1 or more']),
    (dict(ROW, output_stride=4), ['output_stride=4', '(8, 16, 32)']),
    (dict(ROW, output_stride=16, strides=(1, 2, 2, 1)), ['output_stride=16', 'strides', 'leave']),
    (dict(ROW, output_stride=16, dilations=(1, 1, 1, 2)), ['output_stride=16', 'dilations', 'leave']),
    (dict(arch='resnext29_8c64w', output_stride=8), ['output_stride=8', 'four stages', 'strides and dilations']),
    (dict(ROW, multi_grid=(1, 2)), ['(1, 2)', '3 blocks']),
    (dict(ROW, multi_grid=(1, 2, 0)), ['multi_grid[2]=0', '1 or more']),
    (dict(ROW, multi_grid=(1, 2, 4), out_indices=(0, 1)), ['(1, 2, 4)', 'out_indices']),
    (dict(ROW, stage_pool='timm'), ["'timm'", "('official', 'mmdet', 'maskrcnn')"]),
    (dict(ROW, frozen_stages=5), ['frozen_stages=5', '-1', '4']),
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
    (dict(arch='res2next29_6c24w4s', family='cifar'), ['res2next29_6c24w4s', 'leave out family']),
    (dict(depths=(1, 1), family='dla'), ["'dla'", "('res2net', 'cifar')"]),
    (dict(depths=(1, 1, 1, 1), family='cifar'), ['4 stages', "'cifar'", '1 to 3']),
]  # fmt: skip


DLA_MISTAKES = [
    (dict(arch='res2net50_26w_4s'), ['res2net50_26w_4s', 'mmres2net.Res2Net']),
    (dict(arch='dla61'), ["'dla61'", 'dla60']),
    (dict(arch='dla60', out_indices=(4,)), ['(4,)', '(0, 1, 2, 3)']),
    (dict(arch='dla60', in_channels=-3), ['in_channels=-3', '1 or more']),
    (dict(arch='dla60', norm_cfg=dict(type='GN', num_groups=32)), ['32 groups', '16', 'num_groups']),
]


@pytest.mark.parametrize(('options', 'parts'), [*MISTAKES, *DLA_MISTAKES], ids=str)
def test_errors_name_the_value_and_what_is_allowed(options, parts):
    kind = Res2NetDLA if (options, parts) in DLA_MISTAKES else Res2Net
    with torch.device('meta'), pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        kind(**options)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_unknown_keywords_are_errors():
    for kind, arch in ((Res2Net, 'res2net50_26w_4s'), (Res2NetDLA, 'dla60')):
        with pytest.raises(TypeError, match='style'):
            kind(arch, style='pytorch')
        with pytest.raises(TypeError, match='positional'):
            kind(arch, (3, 4, 6, 3))


def test_configs_passed_in_are_left_alone():
    config = dict(
        SMALL, norm_cfg=dict(type='BN', eps=1e-3, requires_grad=True), conv_cfg=dict(type='Conv2d'),
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=True), stage_with_dcn=[False, True, True, True],
        plugins=[dict(cfg=dict(type='TimesTwo', postfix='_a'), stages=[True] * 4, position='after_conv2')],
        out_indices=[0, 1, 2, 3], strides=[1, 2, 2, 1], dilations=[1, 1, 1, 2], multi_grid=[2, 4],
        init_cfg=[dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='_BatchNorm')],
    )  # fmt: skip
    before = copy.deepcopy(config)
    models = [Res2Net(**config) for _ in range(2)]
    for model in models:
        model.init_weights()
    assert config == before
    assert [n for n, _ in models[0].named_modules()] == [n for n, _ in models[1].named_modules()]
