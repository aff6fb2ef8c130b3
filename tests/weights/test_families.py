"""Whose weights a file holds and of which network; what is none is refused by what it is."""

import re

import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.models import ARCHS, Res2Net
from mmres2net.weights.naming import STEM_NAMES, recognise, rename
from mmres2net.weights.reading import unwrap, weights_key
from tests.weights.networks import numbered, state_of, under

V1B = [name for name, row in ARCHS.items() if row.deep_stem]


def meta(make):
    with torch.device('meta'):
        return make()


@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_every_row_is_found_by_its_shapes(arch, prefix):
    found = recognise(under(prefix, state_of(arch)))
    assert (found.arch, found.row, found.prefix, found.in_channels) == (arch, ARCHS[arch], prefix, 3)
    assert (found.family, found.stage_pool) == ('mmres2net', 'official')
    assert found.stage_pool_sure is (ARCHS[arch].family == 'dla')


@pytest.mark.parametrize(
    ('library', 'prefix', 'pool', 'sure'),
    [
        ('mmdet', 'backbone.', 'mmdet', True),
        # mmdet's ImageNet weights are the official ones renamed, so nothing says that mmdet's function is theirs
        ('mmdet', '', 'official', False),
        ('mmpretrain', '', 'official', True),
    ],
)
@pytest.mark.parametrize('arch', V1B)
def test_libraries_are_told_by_the_deep_stem(arch, library, prefix, pool, sure):
    found = recognise({prefix + rename(name, STEM_NAMES[library]): t for name, t in state_of(arch).items()})
    assert (found.family, found.arch, found.stage_pool, found.stage_pool_sure) == (library, arch, pool, sure)


def test_networks_outside_the_table_are_described_by_options_that_build_them():
    shape = dict(depths=(1, 2, 1, 3), base_width=8, scales=3, cardinality=2, deep_stem=True, se_reduction=8)
    model = meta(lambda: Res2Net(**shape, in_channels=5))
    found = recognise(model.state_dict())
    assert (found.arch, found.in_channels) == (None, 5)
    assert 'base width 8, 3 scales, cardinality 2, deep stem, SE of reduction 8' in str(found)
    rebuilt = meta(lambda: Res2Net(**found.options)).state_dict()
    assert {n: t.shape for n, t in rebuilt.items()} == {n: t.shape for n, t in model.state_dict().items()}
    for scales in (1, 2):  # both have one convolution
        assert recognise(Res2Net(depths=(1, 1), base_width=8, scales=scales).state_dict()).row.scales == scales


@pytest.mark.parametrize('arch', ['res2net50_26w_4s', 'res2net_dla60_4s', 'se_res2net50_26w_4s'])
def test_a_backbone_cut_short_keeps_its_name(arch):
    found = recognise(state_of(arch, out_indices=(2,)))
    assert (found.arch, found.row.depths) == (arch, ARCHS[arch].depths[:3])
    assert found.options['out_indices'] == (0, 1, 2)


TORCHVISION = dict(resnet18='ResNet-18', resnet34='ResNet-34', resnet101='ResNet-101', resnext50_32x4d='ResNeXt')


@pytest.mark.parametrize(('name', 'words'), TORCHVISION.items())
def test_torchvision_is_refused_by_its_name(name, words):
    models = pytest.importorskip('torchvision.models')
    with pytest.raises(UserError, match=words):
        recognise(meta(lambda: getattr(models, name)()).state_dict())


@pytest.mark.parametrize(
    ('lacking', 'words'),
    [
        (r'conv1', r'no stem: none of conv1.weight'),
        (r'layer1\.1\.convs', r"'layer1.1.convs.0.weight'"),
        (r'layer1\.1\.convs\.2\.weight', r'2 3x3 convolutions of 26 channels'),
        (r'.*convs', r'neither convs.0 nor conv2'),
        (r'.*', r'patch_embed.weight'),
    ],
)
def test_what_is_no_res2net_is_refused(lacking, words):
    state = {n: t for n, t in state_of('res2net50_26w_4s').items() if not re.match(lacking, n)}
    with pytest.raises(UserError, match=words):
        recognise(state or numbered({'patch_embed.weight': (1,), 'head.weight': (1,)}))


@pytest.mark.parametrize('key', ['state_dict', 'model', 'state_dict_ema', 'model_ema'])
@pytest.mark.parametrize('wrapper', ['', 'module.', '_orig_mod.', 'module._orig_mod.'])
def test_wrappers_come_off(key, wrapper):
    weights = numbered({'conv1.weight': (1,), 'module_list.0.weight': (1,)})
    content = {key: {**under(wrapper, weights), 'step': 7}, 'epoch': 3, 'optimizer': {'state': {}}}
    assert unwrap(content) == weights
    assert unwrap(content, key=key) == weights
    assert weights_key(content) == key
    assert unwrap(under(wrapper, weights)) == weights


def test_an_average_is_unwrapped_and_content_without_weights_refused():
    weights, average = numbered({'a': (1,)}), numbered({'a': (1,)}, first=5)
    # MMEngine's hook puts the average under state_dict itself
    assert unwrap({'ema_state_dict': under('module.', average), 'state_dict': weights}) == weights
    with pytest.raises(UserError, match=r"'epoch', 'meta'"):
        unwrap({'epoch': 3, 'meta': {'a': 1}})
    with pytest.raises(UserError, match=r"'ema'.*model"):
        unwrap({'model': numbered({'a': (1,)})}, key='ema')
    with pytest.raises(UserError, match=r"'module.a'"):
        unwrap(numbered({'a': (1,), 'module.a': (1,)}))
