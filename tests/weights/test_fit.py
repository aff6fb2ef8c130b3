"""Weights into networks: the same function as where they come from, or one error that says why not."""

import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.models import ARCHS, Res2LayerHead, Res2Net, Res2NetDLA
from mmres2net.weights.loading import adapt_channels, check_stage_pool, fit, stage_pools_of, to_ours
from mmres2net.weights.naming import recognise
from mmres2net.weights.verify import compare
from tests.reference.compare import assert_close, randomise
from tests.reference.res2net import TIMM_NAMES
from tests.support.timm_models import DLA, dla_features, resnet_features
from tests.weights.networks import build, numbered, state_of

SMALL = dict(depths=(1, 2, 1, 1), base_width=8)
FEW = ('50_26w_4s', '50_v1b_26w_4s', 'next50_4s', 'dla60_4s')
OUTSIDE = [name for name, row in ARCHS.items() if row.family != 'cifar']


def by_kind(names):
    """One of each kind; the others in the slow run: the function is the same, there is more or less of it."""
    return [n if n.endswith(FEW) else pytest.param(n, marks=pytest.mark.slow) for n in names]


def small(**options):
    return randomise(Res2Net(**SMALL, **options)).float()


def same_features(net, state, run_theirs, channels=3):
    """`net`, filled from `state`, gives at every stage what the source itself gives."""
    recognised = recognise(state)
    ours, _ = to_ours(state, recognised)
    check_stage_pool(recognised, net)
    fit(ours, net.double())
    image = torch.randn(2, channels, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        for i, (out, want) in enumerate(zip(net.eval()(image), run_theirs(image), strict=True)):
            assert want.std() > 1e-3
            assert_close(out, want, 1e-10, f'stage {i}')


@pytest.mark.parametrize('arch', by_kind([*TIMM_NAMES, *DLA]))
def test_timm_models_give_the_same_features(arch):
    timm = pytest.importorskip('timm')
    model = randomise(timm.create_model({**TIMM_NAMES, **DLA}[arch], num_classes=10))
    model.eval()
    run = dla_features(model) if arch in DLA else resnet_features(model)
    state = model.state_dict()
    assert recognise(state).arch == arch
    same_features(build(arch), state, run)


def test_timm_squeeze_excite_gives_the_same_features():
    timm = pytest.importorskip('timm')
    layer = pytest.importorskip('timm.layers').SEModule
    model = randomise(timm.create_model('res2net50_26w_4s', block_args=dict(scale=4, attn_layer=layer))).eval()
    assert recognise(model.state_dict()).arch == 'se_res2net50_26w_4s'
    same_features(build('se_res2net50_26w_4s'), model.state_dict(), resnet_features(model))


@pytest.mark.parametrize('depth', [50, pytest.param(101, marks=pytest.mark.slow)])
def test_mmdet_gives_the_same_features_under_its_stage_pool(depth):
    backbones = pytest.importorskip('mmdet.models.backbones')
    model = randomise(backbones.Res2Net(depth=depth))
    model.eval()
    detector = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}
    arch = f'res2net{depth}_v1b_26w_4s'
    with pytest.raises(UserError, match=r"trained with stage_pool='mmdet', the network has 'official'.*Set stage_pool"):
        same_features(build(arch), detector, model)
    same_features(build(arch, stage_pool='mmdet'), detector, model)


@pytest.mark.parametrize(
    'name', by_kind(['50_48w_2s', '50_26w_4s', '50_14w_8s', '50_26w_8s', '50_v1b_26w_4s', '101_26w_4s'])
)
def test_mmpretrain_gives_the_same_features(name):
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    arch = f'res2net{name}'
    row = ARCHS[arch]
    options = {key: getattr(row, key) for key in ('base_width', 'scales', 'deep_stem', 'avg_down')}
    model = backbones.Res2Net(depth=int(name.split('_')[0]), out_indices=(0, 1, 2, 3), **options)
    randomise(model).eval()
    same_features(build(arch), model.state_dict(), model)


@pytest.mark.parametrize('arch', by_kind([n for n in OUTSIDE if n not in {*TIMM_NAMES, *DLA, 'se_res2net50_26w_4s'}]))
def test_rows_without_a_name_in_timm_are_compared_by_numbers(arch):
    """What is left of the table, built in timm by its shape."""
    pytest.importorskip('timm')
    state = randomise(build(arch)).state_dict()
    found = compare(state, recognise(state), 'timm')
    assert found.equal, found


@pytest.mark.parametrize('channels', [1, 2, 4, 7])
def test_channels_are_adapted_as_timm_does(channels):
    manipulate = pytest.importorskip('timm.models')
    weight = torch.randn(8, 3, 7, 7)
    assert_close(adapt_channels(weight, channels), manipulate.adapt_input_conv(channels, weight), 1e-6, 'weight')


@pytest.mark.parametrize('options', [{}, dict(deep_stem=True), 'dla'], ids=['v1', 'v1b', 'dla'])
@pytest.mark.parametrize('channels', [1, 6])
def test_equal_channels_give_what_a_grey_image_gave(options, channels):
    def make(n):
        return Res2NetDLA('dla60', in_channels=n) if options == 'dla' else Res2Net(**SMALL, **options, in_channels=n)

    rgb, other = randomise(make(3)).eval(), make(channels).double().eval()
    report = fit(rgb.state_dict(), other)
    assert f'from 3 to {channels} input channels' in str(report)
    grey = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        pairs = zip(other(grey.expand(-1, channels, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)), strict=True)
        for out, want in pairs:
            assert_close(out, want, 1e-12, 'features')


def test_only_rgb_is_adapted_and_only_memory_is_filled():
    with pytest.raises(UserError, match=r'conv1.weight \(64, 4, 7, 7\) in the file, \(64, 1, 7, 7\) here'):
        fit(small(in_channels=4).state_dict(), small(in_channels=1))
    with torch.device('meta'):
        net = Res2Net(**SMALL)
    with pytest.raises(ValueError, match='meta device'):
        fit(small().state_dict(), net)


@pytest.mark.parametrize('random_ok', [['conv1', 'bn1'], ['conv1.weight', 'bn1.*'], ['*n1.weight', 'bn1', 'conv1']])
def test_what_may_stay_random_is_named(random_ok):
    net = small()
    state = {n: t + 1 for n, t in small().state_dict().items() if not n.startswith(('conv1', 'bn1'))}
    stem = net.conv1.weight.clone()
    report = fit(state, net, random_ok=random_ok)
    assert 'conv1.weight' in report.random
    assert 'conv1.weight, bn1.weight' in str(report)
    assert torch.equal(net.conv1.weight, stem)
    assert torch.equal(net.layer1[0].conv3.weight, state['layer1.0.conv3.weight'])


def test_names_that_the_network_does_not_have_cannot_stay_random():
    with pytest.raises(UserError, match="'fc'"):
        fit(small().state_dict(), small(), random_ok=['fc'])
    with pytest.raises(UserError, match=r"\['conv1'\]"):
        fit(small().state_dict(), small(), random_ok='conv1')


def test_another_network_is_named_with_both_names():
    net = build('res2net50_26w_4s')
    with pytest.raises(UserError, match=r'(?s)(?=.*res2net50_26w_4s)(?=.*res2net50_v1b_26w_4s).*conv1.weight'):
        fit(state_of('res2net50_v1b_26w_4s'), net)
    with pytest.raises(UserError, match=r'layer1.0.conv1.weight \(112, 64, 1, 1\) in the file, \(104, 64, 1, 1\) here'):
        fit(state_of('res2net50_14w_8s'), net)


@pytest.mark.parametrize(
    ('options', 'words'),
    [(dict(norm_cfg=dict(type='GN', num_groups=2)), r'bn1.running_mean'), (dict(se_reduction=4), 'se.fc1.weight')],
)
def test_layers_of_another_kind_are_errors(options, words):
    with pytest.raises(UserError, match=f'(?s){words}'):
        fit(small().state_dict(), small(**options))
    with pytest.raises(UserError, match='tensors in the file match no parameter'):
        fit(small(se_reduction=4).state_dict(), small())


def test_a_shared_head_takes_its_stage_and_a_backbone_the_stages_that_it_builds():
    weights = {**small().state_dict(), **numbered({'fc.weight': (10, 2048)})}
    net, head = Res2Net(**SMALL, out_indices=(0, 1)), Res2LayerHead(**SMALL)
    report = fit(weights, net)
    assert {name.split('.')[0] for name in report.left} == {'layer3', 'layer4', 'fc'}
    assert set(report.loaded) == set(net.state_dict())
    assert 'layer4' not in {name.split('.')[0] for name in fit(weights, head).left}
    assert torch.equal(head.layer4[0].conv1.weight, weights['layer4.0.conv1.weight'])
    del weights['layer4.0.bn3.bias']
    with pytest.raises(UserError, match=r'(?s)Res2LayerHead.*layer4.0.bn3.bias'):
        fit(weights, head)


def test_offsets_of_deformable_convolutions_may_start_at_zero():
    deform = dict(dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, False, True, False))
    net = Res2Net(**SMALL, **deform)
    report = fit(small().state_dict(), net)
    assert '6 offsets' in str(report)
    assert report.random == ()
    assert not any(value.any() for name, value in net.state_dict().items() if 'conv_offset' in name)
    net.layer3[0].convs[0].conv_offset.bias.data += 1
    with pytest.raises(UserError, match=r'1 tensors .*layer3.0.convs.0.conv_offset.bias'):
        fit(small().state_dict(), net)
    with pytest.raises(UserError, match='6 tensors in the file'):
        fit(net.state_dict(), small())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_cast_and_said(dtype):
    net = small()
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in small().state_dict().items()}
    report = fit(state, net)
    assert net.conv1.weight.dtype == torch.float32
    assert torch.equal(net.conv1.weight, state['conv1.weight'].float())
    assert f'tensors cast from {str(dtype)[6:]} to float32' in str(report)


@pytest.mark.parametrize('avg_down', [False, True])
@pytest.mark.parametrize('output_stride', [8, 32])
@pytest.mark.parametrize('pool', ['official', 'mmdet', 'maskrcnn'])
def test_a_network_tells_its_stage_pool(pool, output_stride, avg_down):
    net = Res2Net(**SMALL, stage_pool=pool, output_stride=output_stride, avg_down=avg_down)
    assert stage_pools_of(net) == {pool}
    head = Res2LayerHead(**SMALL, stage_pool=pool)  # strided, so that it is the same function in mmdet
    assert stage_pools_of(head) == ({'maskrcnn'} if pool == 'maskrcnn' else {'official', 'mmdet'})


def test_the_papers_mask_rcnn_starts_from_official_weights():
    """Nothing was trained with `maskrcnn` before; who asks for it by name means it."""
    state = {**Res2Net('res2net50_26w_4s').state_dict(), 'fc.weight': torch.zeros(1000, 2048)}
    recognised = recognise(state)
    assert (recognised.stage_pool, recognised.stage_pool_sure) == ('official', True)
    check_stage_pool(recognised, Res2Net('res2net50_26w_4s', stage_pool='maskrcnn'))
    with pytest.raises(UserError, match="Set stage_pool='official'"):
        check_stage_pool(recognised, Res2Net('res2net50_26w_4s', stage_pool='mmdet'))
