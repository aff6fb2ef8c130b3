"""Whose weights a file holds and of which network; what is none is refused by what it is."""

import re

import pytest
import torch

from mmres2net.errors import UserError
from mmres2net.models import ARCHS
from mmres2net.weights.naming import STEM_NAMES, recognise, rename
from mmres2net.weights.reading import unwrap, weights_key
from tests.weights.networks import classifier, numbered, state_of, under

V1B = [name for name, row in ARCHS.items() if row.deep_stem]


@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_every_row_is_a_res2net_of_a_kind(arch, prefix):
    found, row = recognise(under(prefix, state_of(arch))), ARCHS[arch]
    kind = (row.family == 'dla', bool(row.se_reduction), row.deep_stem)
    assert (found.dla, found.se, found.deep_stem, found.prefix) == (*kind, prefix)
    assert (found.family, found.stage_pool) == ('mmres2net', 'official' if row.family == 'dla' else None)


@pytest.mark.parametrize(('library', 'prefix', 'pool'), [
    ('mmdet', 'backbone.', 'mmdet'),
    # mmdet's ImageNet weights are the official ones renamed, so nothing says that mmdet's function is theirs
    ('mmdet', '', None), ('mmpretrain', '', 'official'),
])  # fmt: skip
@pytest.mark.parametrize('arch', V1B)
def test_libraries_are_told_by_the_deep_stem(arch, library, prefix, pool):
    found = recognise({prefix + rename(name, STEM_NAMES[library]): t for name, t in state_of(arch).items()})
    assert (found.family, found.stage_pool) == (library, pool)


def test_files_are_told_by_a_classifier_in_the_head_or_by_projections_that_never_run():
    plain, dla = 'res2net50_14w_8s', 'res2net_dla60_4s'
    found = recognise({**under('backbone.', state_of(plain)), **classifier(plain, 'head.fc')})
    assert (found.family, found.prefix) == ('mmpretrain', 'backbone.')
    assert found.stage_pool
    extra = numbered({'level3.project.0.weight': (256, 128, 1, 1)})
    assert recognise({**state_of(dla), **classifier(dla), **extra}).family == 'official'


@pytest.mark.parametrize('name', ['resnet18', 'resnext50_32x4d'])
def test_torchvision_is_refused_by_its_name(name):
    models = pytest.importorskip('torchvision.models')
    with torch.device('meta'):
        state = getattr(models, name)().state_dict()
    with pytest.raises(UserError, match='ResNet or ResNeXt'):
        recognise(state)


@pytest.mark.parametrize(('lacking', 'words'), [
    (r'conv1', r'no stem: none of conv1.weight'), (r'.*convs', r'no convolutions convs\.0'),
    (r'.*', r'patch_embed.weight'),
])  # fmt: skip
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
