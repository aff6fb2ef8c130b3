"""Equal to the hosts' own Res2Nets where they are the same network: mmpretrain's, and mmdet's under its stage pool.

Both name a deep stem otherwise (`stem.*`); all other names are the official ones.
"""

from functools import partial

import pytest
import torch

from mmres2net.models import Res2Net
from tests.reference.compare import assert_same_function, largest_difference, randomise, with_weights

PLAN = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
V1 = dict(deep_stem=False, avg_down=False, out_indices=(0, 1, 2, 3))
V1B = dict(deep_stem=True, avg_down=True, out_indices=(0, 1, 2, 3))


# Our names of the deep stem's layers, and the hosts'
MMDET_STEM = {**{f'conv1.{i}': f'stem.{i}' for i in (0, 1, 3, 4, 6)}, 'bn1': 'stem.7'}
MMPRETRAIN_STEM = {
    'conv1.0': 'stem.0.conv',
    'conv1.1': 'stem.0.bn',
    'conv1.3': 'stem.1.conv',
    'conv1.4': 'stem.1.bn',
    'conv1.6': 'stem.2.conv',
    'bn1': 'stem.2.bn',
}


def host_name(name, stem):
    """The host's name of one of our parameters; `stem` is one of the two above."""
    layer, parameter = name.rsplit('.', 1)
    return f'{stem.get(layer, layer)}.{parameter}'


def check(build_host, stem, **options):
    rename = partial(host_name, stem=stem)
    host = randomise(build_host())  # mmpretrain's cannot be built on the meta device
    theirs = host.state_dict()
    ours = {ours: theirs[rename(ours)] for ours in Res2Net(**options).state_dict()}
    assert len(ours) == len(theirs)
    backbone = with_weights(lambda: Res2Net(**options), ours)
    x = torch.randn(2, 3, 65, 50, dtype=torch.float64)
    assert_same_function(backbone, host, x, rename=rename)


@pytest.fixture(scope='module')
def mmpretrain_res2net():
    pytest.importorskip('mmpretrain')
    from mmpretrain.models.backbones import Res2Net as Host

    return Host


@pytest.fixture(scope='module')
def mmdet_res2net():
    pytest.importorskip('mmdet')
    from mmdet.models.backbones import Res2Net as Host

    return Host


@pytest.mark.parametrize(('width', 'scales'), [(48, 2), (26, 4), (14, 8)])
def test_mmpretrain_v1(mmpretrain_res2net, width, scales):
    check(
        lambda: mmpretrain_res2net(depth=50, base_width=width, scales=scales, **V1),
        {},
        arch=f'res2net50_{width}w_{scales}s',
    )


def test_mmpretrain_v1_dilated(mmpretrain_res2net):
    check(
        lambda: mmpretrain_res2net(depth=50, base_width=26, scales=4, **V1, **PLAN),
        {},
        arch='res2net50_26w_4s',
        **PLAN,
    )


@pytest.mark.parametrize('depth', [50, 101])
def test_mmpretrain_v1b(mmpretrain_res2net, depth):
    check(
        lambda: mmpretrain_res2net(depth=depth, base_width=26, scales=4, **V1B),
        MMPRETRAIN_STEM,
        arch=f'res2net{depth}_v1b_26w_4s',
    )


@pytest.mark.parametrize('plan', [{}, PLAN], ids=['strided', 'dilated'])
def test_mmdet_v1b(mmdet_res2net, plan):
    check(
        lambda: mmdet_res2net(depth=50, base_width=26, scales=4, norm_eval=False, **plan),
        MMDET_STEM,
        arch='res2net50_v1b_26w_4s',
        stage_pool='mmdet',
        **plan,
    )


def test_mmdet_101_v1b(mmdet_res2net):
    check(
        lambda: mmdet_res2net(depth=101, base_width=26, scales=4, norm_eval=False),
        MMDET_STEM,
        arch='res2net101_v1b_26w_4s',
        stage_pool='mmdet',
    )


@pytest.mark.parametrize('plan', [{}, PLAN], ids=['strided', 'dilated'])
def test_mmdet_is_another_function_than_the_official_one(mmdet_res2net, plan):
    """Same names, same shapes, other numbers, from the first stage on: weights of the one mislead the other."""
    host = randomise(mmdet_res2net(depth=50, base_width=26, scales=4, **plan))
    host.eval()
    theirs = host.state_dict()
    names = Res2Net('res2net50_v1b_26w_4s').state_dict()
    weights = {name: theirs[host_name(name, MMDET_STEM)] for name in names}
    official = with_weights(lambda: Res2Net('res2net50_v1b_26w_4s', **plan), weights).eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        outs, expected = official(x), host(x)
    for i in range(4):
        assert largest_difference(outs[i : i + 1], expected[i : i + 1]) > 0.01
