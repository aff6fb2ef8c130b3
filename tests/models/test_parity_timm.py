"""Equal to timm: same random weights by name (strict), same features, gradients and norm statistics, in float64."""

import pytest
import torch

from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.compare import FORWARD_TOL, assert_close, assert_same_function, random_network, with_weights
from tests.reference.res2net import TIMM_NAMES
from tests.support.timm_models import DLA, dla_features, resnet_features

timm = pytest.importorskip('timm')
SEModule = pytest.importorskip('timm.layers').SEModule

# Narrow and shallow networks for what does not depend on the row: (ours, theirs)
SMALL = {
    'v1': (dict(depths=(1, 2, 2, 3), base_width=8), dict(layers=(1, 2, 2, 3), base_width=8)),
    'v1b': (
        dict(depths=(1, 2, 2, 3), base_width=8, deep_stem=True, avg_down=True),
        dict(layers=(1, 2, 2, 3), base_width=8, stem_width=32, stem_type='deep', avg_down=True),
    ),
    'next': (
        dict(depths=(1, 2, 2, 3), base_width=4, cardinality=4),
        dict(layers=(1, 2, 2, 3), base_width=4, cardinality=4),
    ),
    'se': (
        dict(depths=(1, 2, 2, 3), base_width=8, se_reduction=16),
        dict(layers=(1, 2, 2, 3), base_width=8, block_args=dict(scale=4, attn_layer=SEModule)),
    ),
}


def pair(ours, theirs, **kwargs):
    """Our network with the random weights of timm's, strictly by name; only the classifier is left out."""
    model = random_network(lambda: timm.create_model(theirs, pretrained=False, num_classes=0, **kwargs))
    return with_weights(ours, model.state_dict()), model


def images(size, channels=3):
    return torch.randn(2, channels, *size, dtype=torch.float64)


@pytest.mark.parametrize(('ours', 'theirs'), TIMM_NAMES.items())
def test_res2net(ours, theirs):
    backbone, model = pair(lambda: Res2Net(ours), theirs)
    assert_same_function(backbone, model, images((33, 49)), run_theirs=resnet_features(model))


@pytest.mark.parametrize('output_stride', [8, 16])
@pytest.mark.parametrize('name', TIMM_NAMES)
def test_features_at_output_strides(name, output_stride):
    backbone, model = pair(
        lambda: Res2Net(name, output_stride=output_stride), TIMM_NAMES[name], output_stride=output_stride
    )
    x = images((33, 49))
    with torch.no_grad():
        for i, (out, want) in enumerate(zip(backbone.eval()(x), resnet_features(model.eval())(x), strict=True)):
            assert_close(out, want, FORWARD_TOL, f'stage {i}')


@pytest.mark.parametrize('output_stride', [8, 16, 32])
@pytest.mark.parametrize('small', SMALL)
def test_gradients_at_output_strides(small, output_stride):
    ours, theirs = SMALL[small]
    backbone, model = pair(
        lambda: Res2Net(**ours, output_stride=output_stride), 'res2net50_26w_4s', **theirs, output_stride=output_stride
    )
    assert backbone.out_strides == tuple(min(s, output_stride) for s in (4, 8, 16, 32))
    assert_same_function(backbone, model, images((65, 50)), run_theirs=resnet_features(model))


@pytest.mark.parametrize('channels', [1, 4])
@pytest.mark.parametrize('small', ['v1', 'v1b'])
def test_other_input_channels(small, channels):
    ours, theirs = SMALL[small]
    backbone, model = pair(
        lambda: Res2Net(**ours, in_channels=channels), 'res2net50_26w_4s', **theirs, in_chans=channels
    )
    assert_same_function(backbone, model, images((33, 49), channels), run_theirs=resnet_features(model))


def test_squeeze_excite():
    block = dict(scale=4, attn_layer=SEModule)
    backbone, model = pair(lambda: Res2Net('se_res2net50_26w_4s'), 'res2net50_26w_4s', block_args=block)
    assert_same_function(backbone, model, images((33, 49)), run_theirs=resnet_features(model))


@pytest.mark.parametrize(('ours', 'theirs'), DLA.items())
def test_dla(ours, theirs):
    backbone, model = pair(lambda: Res2NetDLA(ours), theirs)
    # timm's DLA takes multiples of 32 only
    assert_same_function(backbone, model, images((32, 64)), run_theirs=dla_features(model))


@pytest.mark.parametrize('channels', [1, 4])
def test_dla_other_input_channels(channels):
    backbone, model = pair(
        lambda: Res2NetDLA('res2net_dla60_4s', in_channels=channels), 'dla60_res2net', in_chans=channels
    )
    run = dla_features(model)
    assert_same_function(backbone, model, images((32, 64), channels), run_theirs=run, modes=['eval'])


def test_every_row_that_timm_has_is_compared():
    names = {n for n in timm.list_models() if 'res2ne' in n or n in ('dla60', 'dla60x')}
    assert names == {*TIMM_NAMES.values(), *DLA.values()}
    assert {*TIMM_NAMES, *DLA} <= set(ARCHS)
