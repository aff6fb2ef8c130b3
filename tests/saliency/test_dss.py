"""DSS: the stem beside the stages, where maps land on the image, which side takes whose map, losses and predictions."""

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from scipy.special import expit as sigmoid
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.deploy import use_fused_blocks
from mmres2net.errors import UserError
from mmres2net.saliency import DSSHead, WithStem
from mmres2net.saliency.dss import upsample

STAGES = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
RESNET = dict(type='mmseg.ResNet', depth=18, **STAGES)
RES2NET = dict(type='mmres2net.Res2Net', depths=(1, 1, 1, 1), base_width=26, scales=4, **STAGES)
BACKBONES = {'ResNet': (RESNET, (64, 64, 128, 256, 512)), 'Res2Net': (RES2NET, (64, 256, 512, 1024, 2048))}
SMALL = dict(channels=(4, 4, 4, 4, 4))


@pytest.mark.parametrize('name', BACKBONES)
def test_stem_comes_before_the_stages(name: str) -> None:
    init_default_scope('mmseg')
    wrapped = WithStem(BACKBONES[name][0]).eval()
    inner, x = wrapped.backbone, torch.rand(2, 3, 65, 97)
    norm = inner.norm1 if name == 'ResNet' else inner.bn1
    stem, *stages = wrapped(x)
    assert torch.equal(stem, norm(inner.conv1(x)).relu())
    assert all(map(torch.equal, stages, inner(x)))
    assert [tuple(f.shape[1:]) for f in (stem, *stages)] == [
        (channels, math.ceil(65 / stride), math.ceil(97 / stride))
        for channels, stride in zip(BACKBONES[name][1], (2, 4, 8, 16, 16), strict=True)
    ]
    assert not inner.maxpool._forward_pre_hooks
    if name == 'Res2Net':
        with torch.no_grad():
            before = wrapped(x)
            assert use_fused_blocks(wrapped) == 4
            for a, b in zip(before, wrapped(x), strict=True):
                torch.testing.assert_close(a, b.contiguous(), rtol=0, atol=1e-5 * float(a.abs().max()))


def test_backbone_keeps_names_freezing_and_config() -> None:
    init_default_scope('mmseg')
    config = dict(RES2NET, frozen_stages=1, norm_eval=True)
    wrapped = WithStem(config).train()
    assert {name.removeprefix('backbone.') for name in wrapped.state_dict()} == set(wrapped.backbone.state_dict())
    assert not any(m.training for m in wrapped.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(p.requires_grad for p in wrapped.backbone.layer1.parameters())
    assert config == dict(RES2NET, frozen_stages=1, norm_eval=True)
    with pytest.raises(UserError, match=r'Res2NetDLA.*`maxpool`'):
        WithStem(dict(type='mmres2net.Res2NetDLA', arch='res2net_dla60_4s'))


@pytest.mark.parametrize('factor', [1, 2, 4, 8, 16])
@pytest.mark.parametrize('size', [(33, 48), (40, 31), (5, 17)])
def test_enlarged_ramp_is_a_ramp(factor: int, size: tuple[int, int]) -> None:
    """A map of the pixel that each feature sits on is the map of pixels, up to the last feature."""
    rows, columns = (factor * torch.arange(math.ceil(n / factor)).float() for n in size)
    x = torch.stack(torch.meshgrid(rows, columns, indexing='ij'))[None]
    pixels = [torch.arange(n).float().clamp(max=float(last[-1])) for n, last in zip(size, (rows, columns), strict=True)]
    expected = torch.stack(torch.meshgrid(*pixels, indexing='ij'))
    torch.testing.assert_close(upsample(x, factor, size)[0], expected, rtol=0, atol=1e-4)


def head_of_constants(values: tuple[float, ...]) -> tuple[DSSHead, list[Tensor]]:
    """A head whose sides give ``values`` everywhere before they take those of others, and features for 32x48."""
    head = DSSHead(in_channels=(3, 3, 3, 3, 3), **SMALL)
    head.init_weights()
    with torch.no_grad():
        for side, value in zip(head.sides, values, strict=True):
            side[-1].weight.zero_()
            side[-1].bias.fill_(value)
        for merge in head.merges:
            if isinstance(merge, nn.Conv2d):
                merge.weight.fill_(1)
    return head, [torch.rand(1, 3, 32 // s, 48 // s) for s in (2, 4, 8, 16, 16)]


def test_short_connections_and_what_is_predicted() -> None:
    """Stage 2 and stage 1 take the maps of the two deepest sides, the stem those of all four."""
    a, b, c, d, e = values = (0.25, -2.0, 3.0, -0.5, 1.0)
    one, two = b + d + e, c + d + e
    stem = a + one + two + d + e
    fused = (stem + one + two + d + e) / 5
    probability = (sigmoid(one) + sigmoid(two) + sigmoid(d) + sigmoid(fused)) / 4
    head, features = head_of_constants(values)
    for map_, value in zip(head.maps(features, (32, 48)), (stem, one, two, d, e, fused), strict=True):
        torch.testing.assert_close(map_, torch.full((1, 1, 32, 48), value))
    # mmseg says the size of a padded image, or of a window of one
    padded = dict(img_shape=(30, 40), pad_shape=(32, 48))
    window = dict(img_shape=torch.Size((32, 48)), pad_shape=(90, 90))
    for logits in (head(features), head.predict(features, [padded], None), head.predict(features, [window], None)):
        torch.testing.assert_close(logits.sigmoid(), torch.full((1, 1, 32, 48), probability))


@pytest.mark.parametrize('logit', [-500.0, 500.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_certain_maps_have_finite_logits(dtype: torch.dtype, logit: float) -> None:
    maps = [torch.full((1, 1, 2, 2), logit, dtype=dtype)] * 6
    assert bool(torch.isfinite(DSSHead(in_channels=(3,) * 5, **SMALL).predicted(maps)).all())


def test_parameters_and_their_start() -> None:
    """Two convolutions and one to a map each; counted by hand from the table in the module's docstring."""
    with torch.device('meta'):
        head = DSSHead()
    sides = [(64, 128, 3), (256, 256, 5), (512, 256, 5), (1024, 512, 5), (2048, 512, 7)]
    count = sum((i * c + c * c) * k * k + 2 * c + c + 1 for i, c, k in sides) + (5 + 1) + 2 * (3 + 1) + (5 + 1)
    assert sum(p.numel() for p in head.parameters()) == count
    head = DSSHead(in_channels=(3, 3, 3, 3, 3), **SMALL)
    head.init_weights()
    assert torch.equal(head.fusion.weight, torch.full((1, 5, 1, 1), 0.2))
    sums = [float(m.weight.detach().mean()) for m in head.merges if isinstance(m, nn.Conv2d)]
    assert sums == pytest.approx([1 / 5, 1 / 3, 1 / 3])


def samples(labels: Tensor) -> list[Any]:
    return [SimpleNamespace(gt_sem_seg=SimpleNamespace(data=one)) for one in labels]


def test_losses_are_means_of_what_counts() -> None:
    values = (0.25, -2.0, 3.0, -0.5, 1.0)
    head, features = head_of_constants(values)
    labels = torch.zeros(1, 1, 32, 48, dtype=torch.long)
    labels[..., :12] = 1
    labels[..., 36:] = 255
    losses = head.loss(features, samples(labels), None)
    assert list(losses) == ['loss_side1', 'loss_side2', 'loss_side3', 'loss_side4', 'loss_side5', 'loss_fused']
    for loss, map_ in zip(losses.values(), head.maps(features, (32, 48)), strict=True):
        logit = map_[0, 0, 0, 0]
        positive, negative = functional.softplus(-logit), functional.softplus(logit)
        torch.testing.assert_close(loss, (positive + 2 * negative) / 3)  # a third of what counts is salient
    losses = head.loss(features, samples(torch.full_like(labels, 255)), None)
    assert [float(loss) for loss in losses.values()] == [0.0] * 6
    labels[0, 0, 0, 0] = 7
    with pytest.raises(UserError, match=r'\[0, 1, 7, 255\].*LoadSaliencyMask'):
        head.loss(features, samples(labels), None)


@pytest.mark.parametrize('name', BACKBONES)
def test_every_parameter_learns_and_probabilities_have_the_size_of_the_file(name: str) -> None:
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    backbone, channels = BACKBONES[name]
    parts = dict(data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=16), test_cfg=ConfigDict(mode='whole'))
    parts['backbone'] = dict(type='mmres2net.WithStem', backbone=backbone)
    parts['decode_head'] = dict(type='mmres2net.DSSHead', in_channels=channels, **SMALL)
    model = MODELS.build(dict(type='EncoderDecoder', **parts))
    model.init_weights()
    for module in model.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    sample = SegDataSample(metainfo=dict(ori_shape=(35, 50), img_shape=(70, 93)))
    with torch.no_grad():
        (found,) = model.test_step(dict(inputs=[torch.randint(0, 255, (3, 70, 93))], data_samples=[sample]))
    probabilities = found.seg_logits.data
    assert probabilities.shape == (1, 35, 50)
    assert 0 <= float(probabilities.min()) < float(probabilities.max()) <= 1
    assert torch.equal(found.pred_sem_seg.data, (probabilities > 0.5).float())
    labels = torch.zeros(2, 1, 64, 64, dtype=torch.long)
    labels[..., 20:40, 20:40] = 1
    losses = model.train().decode_head.loss(model.extract_feat(torch.rand(2, 3, 64, 64)), samples(labels), None)
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_options_and_features_that_cannot_be() -> None:
    wrong = dict(channels=(8, 8), kernel_sizes=(3, 3, 4, 3, 3), strides=(2, 4, 8, 12, 16))
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=re.escape(f'{name}={value!r}')):
            DSSHead(**{name: value})
    head, features = head_of_constants((0.0,) * 5)
    with pytest.raises(ValueError, match=r'4 features.*WithStem'):
        head.maps(features[1:], (32, 48))
    with pytest.raises(ValueError, match=r'\(4, 4\).*\(64, 64\).*stride 8'):
        upsample(torch.zeros(1, 1, 4, 4), 8, (64, 64))
