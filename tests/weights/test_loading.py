"""Weights into networks: the same function as where they come from, all of them, or one error that says why not."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmres2net import create_model
from mmres2net.errors import UserError
from mmres2net.models import Res2LayerHead, Res2Net, Res2NetDLA
from mmres2net.registry import MODELS
from mmres2net.weights.fetching import IMAGENET
from mmres2net.weights.loading import Pretrained, adapt_channels, check_stage_pool, fit, stage_pools_of, to_ours
from mmres2net.weights.naming import recognise
from tests.reference.compare import assert_close, randomise
from tests.support.hostile import hostile
from tests.weights.networks import build, numbered, state_of

SMALL = dict(depths=(1, 2, 1, 1), base_width=8)
ARCH = 'res2net50_18w_4s'
IMAGE = torch.randn(2, 3, 64, 96)


def small(**options):
    return randomise(Res2Net(**SMALL, **options)).float()


def same_features(net, state, run_theirs):
    """`net`, filled from `state`, gives at every stage what the source itself gives."""
    recognised = recognise(state)
    ours, _ = to_ours(state, recognised)
    check_stage_pool(recognised, net)
    fit(ours, net.double())
    image = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        for i, (out, want) in enumerate(zip(net.eval()(image), run_theirs(image), strict=True)):
            assert want.std() > 1e-3
            assert_close(out, want, 1e-10, f'stage {i}')


def test_mmdet_gives_the_same_features_under_its_stage_pool():
    model = randomise(pytest.importorskip('mmdet.models.backbones').Res2Net(depth=50))
    model.eval()
    detector, arch = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}, 'res2net50_v1b_26w_4s'
    with pytest.raises(UserError, match=r"trained with stage_pool='mmdet', the network has 'official'.*Set stage_pool"):
        same_features(build(arch), detector, model)
    same_features(build(arch, stage_pool='mmdet'), detector, model)


@pytest.mark.parametrize('arch', ['res2net50_14w_8s', 'res2net_dla60_4s'])
def test_plain_networks_have_weights_with_their_classifier(arch: str, tmp_path: Path) -> None:
    """A classifier of other classes starts random."""
    timm = pytest.importorskip('timm')
    theirs = timm.create_model({'res2net_dla60_4s': 'dla60_res2net'}.get(arch, arch), num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / 'weights.pth')
    path, image, theirs = str(tmp_path / 'weights.pth'), IMAGE.double(), theirs.double()
    ours, pooled, other = (create_model(arch, pretrained=path, num_classes=n).double().eval() for n in (10, 0, 3))
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))
        torch.testing.assert_close(pooled(image), theirs.forward_head(theirs.forward_features(image), pre_logits=True))
    assert other(image).shape == (2, 3)


@pytest.mark.parametrize('arch', ['res2net50_26w_4s', 'res2net_dla60_4s', 'res2next29_6c24w4s'])
def test_plain_features_have_the_channels_and_strides_they_say(arch: str) -> None:
    model = create_model(arch, features_only=True, out_indices=(1, 2))
    expected = [(2, c, 64 // stride, 96 // stride) for c, stride in zip(model.channels, model.strides, strict=True)]
    assert [tuple(x.shape) for x in model(IMAGE)] == expected
    assert model.normalization == (None if '29' in arch else IMAGENET)


def test_mistakes_in_plain_networks() -> None:
    wrong = (dict(num_classes=-1), dict(out_indices=(1,)), dict(pretrained='absent.pth'))
    cases = [('res2net51', {}), *(('res2net50_26w_4s', options) for options in wrong)]
    for arch, options in [*cases, ('res2next29_6c24w4s', dict(pretrained=True))]:
        with pytest.raises(ValueError, match=r'\S'):
            create_model(arch, **options)


@pytest.mark.parametrize('channels', [1, 2, 4, 7])
def test_channels_are_adapted_as_timm_does(channels):
    manipulate = pytest.importorskip('timm.models')
    weight = torch.randn(8, 3, 7, 7)
    assert_close(adapt_channels(weight, channels), manipulate.adapt_input_conv(channels, weight), 1e-6, 'weight')


def test_a_network_for_grey_images_takes_the_sum() -> None:
    rgb, grey = small(), Res2Net(**SMALL, in_channels=1)
    assert 'from 3 to 1 input channels' in str(fit(rgb.state_dict(), grey))
    assert torch.equal(grey.conv1.weight, rgb.conv1.weight.sum(1, keepdim=True))


V1B = r'conv1.weight'
WIDTH = r'layer1.0.conv1.weight \(112, 64, 1, 1\) in the file, \(104, 64, 1, 1\) here'
GN = dict(norm_cfg=dict(type='GN', num_groups=2))
MISFITS = [
    (lambda: state_of('res2net50_v1b_26w_4s'), lambda: build('res2net50_26w_4s'), {}, V1B),
    (lambda: state_of('res2net50_14w_8s'), lambda: build('res2net50_26w_4s'), {}, WIDTH),
    (dict(in_channels=4), dict(in_channels=1), {}, r'conv1.weight \(64, 4, 7, 7\) in the file, \(64, 1, 7, 7\) here'),
    ({}, GN, {}, r'(?s)bn1.running_mean'), ({}, dict(se_reduction=4), {}, r'(?s)se.fc1.weight'),
    (dict(se_reduction=4), {}, {}, 'tensors in the file match no parameter'),
    ({}, {}, dict(random_ok=['fc']), "'fc'"), ({}, {}, dict(random_ok='conv1'), r"\['conv1'\]"),
]  # fmt: skip


@pytest.mark.parametrize(('state', 'net', 'options', 'words'), MISFITS)
def test_what_does_not_fit_is_named(state: Any, net: Any, options: dict, words: str) -> None:
    weights = state() if callable(state) else small(**state).state_dict()
    with pytest.raises(UserError, match=words):
        fit(weights, net() if callable(net) else small(**net), **options)


def test_nothing_is_loaded_without_memory() -> None:
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
    assert report.random == []
    assert not any(value.any() for name, value in net.state_dict().items() if 'conv_offset' in name)
    net.layer3[0].convs[0].conv_offset.bias.data += 1
    with pytest.raises(UserError, match=r'1 tensors .*layer3.0.convs.0.conv_offset.bias'):
        fit(small().state_dict(), net)
    with pytest.raises(UserError, match='6 tensors in the file'):
        fit(net.state_dict(), small())


def test_half_precision_is_cast_and_said():
    net = small()
    state = {n: t.bfloat16() if t.is_floating_point() else t for n, t in small().state_dict().items()}
    report = fit(state, net)
    assert torch.equal(net.conv1.weight, state['conv1.weight'].float())
    assert 'tensors cast from bfloat16 to float32' in str(report)


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
    recognised = recognise({**state_of('res2net50_26w_4s'), 'fc.weight': torch.zeros(1000, 2048)})
    assert recognised.stage_pool == 'official'
    check_stage_pool(recognised, Res2Net('res2net50_26w_4s', stage_pool='maskrcnn'))
    with pytest.raises(UserError, match="Set stage_pool='official'"):
        check_stage_pool(recognised, Res2Net('res2net50_26w_4s', stage_pool='mmdet'))


@cache
def source() -> Res2Net:
    """A network whose every tensor differs from what an initialiser would give."""
    net = Res2Net(ARCH)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(5))
    return net


def start(state: dict[str, Any], folder: Path, kind: str = 'Res2Net', arch: str = ARCH, **options: Any) -> nn.Module:
    torch.save(state, folder / 'net.pth')
    given = {key: options.pop(key) for key in ('prefix', 'random_ok') if key in options}
    init_cfg = dict(type='mmres2net.Pretrained', checkpoint=str(folder / 'net.pth'), **given)
    net = MODELS.build(dict(type=f'mmres2net.{kind}', arch=arch, init_cfg=init_cfg, **options))
    net.init_weights()
    return net


def check_same(net: nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    found = net.state_dict()
    assert found
    assert [name for name, tensor in found.items() if not torch.equal(tensor, wanted[name])] == []


def test_every_tensor_is_the_files_also_where_it_holds_more_than_the_network(tmp_path: Path) -> None:
    wanted, classifier = source().state_dict(), {'fc.weight': torch.ones(1000, 2048), 'fc.bias': torch.ones(1000)}
    renamed = {f'module.backbone.{name}': tensor for name, tensor in wanted.items()}
    detector = {'state_dict': {**renamed, 'module.neck.conv.weight': torch.ones(1)}, 'meta': {'epoch': 1}}
    check_same(start(wanted, tmp_path), wanted)
    check_same(start(detector, tmp_path), wanted)
    check_same(start(detector, tmp_path, prefix='backbone.'), wanted)
    check_same(start(wanted | classifier, tmp_path), wanted)
    check_same(start(wanted, tmp_path, out_indices=(2,)), wanted)
    check_same(start(wanted, tmp_path, kind='Res2LayerHead', stage=3, stride=2), wanted)
    dla = Res2NetDLA('res2net_dla60_4s').state_dict()
    check_same(start(dla, tmp_path, kind='Res2NetDLA', arch='res2net_dla60_4s'), dla)


@pytest.mark.parametrize('name', ['conv1.weight', 'layer3.2.bns.1.running_var', 'layer2.0.downsample.1.weight'])
def test_nothing_stays_random_unnamed(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / 'net.pth')
    torch.save({key: value for key, value in source().state_dict().items() if key != name}, path)
    net = Res2Net(ARCH)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match='no stem' if name == 'conv1.weight' else name) as caught:
        Pretrained(path)(net)
    assert path in str(caught.value)
    check_same(net, before)
    if name != 'conv1.weight':  # without it the file is of no network
        Pretrained(path, random_ok=[name])(net)
        check_same(net, {**source().state_dict(), name: before[name]})


def test_hostile_file_and_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'posix\.system'):
        Pretrained(str(hostile(tmp_path / 'net.pth', tmp_path / 'marker')))(Res2Net(ARCH))
    assert not (tmp_path / 'marker').exists()
    with pytest.raises(UserError, match='checkpoint=None'):
        Pretrained(None)  # type: ignore[arg-type]
