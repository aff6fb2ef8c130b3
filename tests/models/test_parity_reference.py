"""Equal to the independent implementation of tests/reference in what timm and the hosts lack.

Weights are random and copied by name, strictly: every name and shape of the one exists in the other.
"""

import pytest
import torch

from mmres2net.models import ARCHS, Res2Net
from tests.reference.compare import assert_same_function, largest_difference, random_network, with_weights
from tests.reference.res2net import POOL_MODES, SPECS, TIMM_NAMES, ReferenceRes2Net, Spec, output_stride_kwargs

# Shallow and narrow, for what does not depend on the row
V1 = Spec((2, 2, 2, 3), base_width=8)
SMALL = {
    'v1': V1,
    'v1b': V1._replace(v1b=True),
    'two scales': V1._replace(scales=2),
    'cardinality': V1._replace(base_width=4, cardinality=4),
    'SE': V1._replace(se_reduction=16),
    'SE v1b': V1._replace(v1b=True, se_reduction=16),
}
SMALL_SPECS = pytest.mark.parametrize('spec', SMALL.values(), ids=SMALL)


def images(size):
    return torch.randn(2, 3, *size, dtype=torch.float64)


def check(spec, options, *, theirs=None, size=(33, 49), modes=('eval', 'train')):
    """The network of `options` equals the reference of `spec` and `theirs`; the former is returned."""
    reference = random_network(lambda: ReferenceRes2Net(spec, **(theirs or {})))
    backbone = with_weights(lambda: Res2Net(**options), reference.state_dict())
    assert_same_function(backbone, reference, images(size), modes=modes)
    return backbone


def options_of(spec):
    """The constructor's keywords for a network outside the table."""
    options = spec._asdict()
    v1b, _ = options.pop('v1b'), options.pop('cifar')
    return dict(options, deep_stem=v1b, avg_down=v1b)


def features(weights, x, **options):
    backbone = with_weights(lambda: Res2Net(**options), weights).eval()
    with torch.no_grad():
        return backbone(x)


def test_every_row_has_a_reference():
    assert set(SPECS) == {name for name, arch in ARCHS.items() if arch.family != 'dla'}


@pytest.mark.parametrize('name', [n for n in SPECS if n not in TIMM_NAMES])
def test_rows_that_timm_lacks(name):
    spec = SPECS[name]
    large = sum(spec.depths) > 16 or '16c64w' in name
    size = (7, 10) if spec.cifar else (33, 49)
    backbone = check(spec, dict(arch=name), size=size, modes=['eval'] if large else ['eval', 'train'])
    assert backbone.out_strides == ((1, 2, 4) if spec.cifar else (4, 8, 16, 32))


@pytest.mark.parametrize('mode', POOL_MODES)
@SMALL_SPECS
def test_stage_pools(spec, mode):
    check(spec, dict(options_of(spec), stage_pool=mode), theirs=dict(mode=mode), size=(65, 50))


@pytest.mark.parametrize('spec', [SMALL['v1'], SMALL['v1b']], ids=['v1', 'v1b'])
def test_stage_pools_are_three_functions(spec):
    weights = random_network(lambda: ReferenceRes2Net(spec)).state_dict()
    x = images((64, 64))
    official, mmdet, maskrcnn = (features(weights, x, **options_of(spec), stage_pool=mode) for mode in POOL_MODES)
    assert largest_difference(official, mmdet) > 0.1
    assert largest_difference(official, maskrcnn) > 0.1
    assert largest_difference(mmdet, maskrcnn) > 0.1
    # mmdet's differs already in the first stage; the other two are one function until the first stride
    assert largest_difference(official[:1], mmdet[:1]) > 0.1
    assert torch.equal(official[0], maskrcnn[0])


@pytest.mark.parametrize('mode', ['official', 'mmdet'])
@pytest.mark.parametrize('contract', [False, True])
@pytest.mark.parametrize('spec', [SMALL['v1'], SMALL['v1b'], SMALL['cardinality']], ids=['v1', 'v1b', 'cardinality'])
def test_dilations_contracted_or_not(spec, contract, mode):
    plan = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    options = dict(options_of(spec), stage_pool=mode, contract_dilation=contract, **plan)
    check(spec, options, theirs=dict(mode=mode, contract=contract, **plan))


@pytest.mark.parametrize('contract', [False, True])
def test_dilations_beside_strides(contract):
    """A dilated stage that keeps its stride: only its 3x3 convolutions change."""
    spec, plan = SMALL['v1b'], dict(dilations=(2, 3, 1, 2))
    check(spec, dict(options_of(spec), contract_dilation=contract, **plan), theirs=dict(contract=contract, **plan))


def test_multi_grid_at_full_stride():
    check(V1, dict(options_of(V1), multi_grid=(1, 2, 4)), theirs=dict(multi_grid=(1, 2, 4)), size=(64, 97))


def test_contraction_is_off_with_dilations_and_on_with_output_stride():
    plan = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    weights = random_network(lambda: ReferenceRes2Net(V1)).state_dict()
    x = images((64, 64))

    def last(**options):
        return features(weights, x, **options_of(V1), **options)[-1]

    plain, contracted = last(**plan), last(output_stride=16)
    assert torch.equal(plain, last(**plan, contract_dilation=False))
    assert torch.equal(plain, last(output_stride=16, contract_dilation=False))
    assert torch.equal(contracted, last(**plan, contract_dilation=True))
    assert (plain - contracted).abs().max() > 0.1


@pytest.mark.parametrize('output_stride', [8, 16])
@pytest.mark.parametrize('grid', [(2, 4, 8), (3, 1, 2)], ids=str)
@pytest.mark.parametrize('spec', [SMALL['v1'], SMALL['SE v1b']], ids=['v1', 'SE v1b'])
def test_multi_grid(spec, grid, output_stride):
    options = dict(options_of(spec), output_stride=output_stride, multi_grid=grid)
    check(spec, options, theirs=dict(output_stride_kwargs(output_stride), multi_grid=grid), modes=['eval'])


@pytest.mark.parametrize(
    'spec',
    [
        Spec((2, 1, 3, 1), 10, 3),
        Spec((1, 2, 1, 1), 26, 5),
        Spec((1, 2, 2), 4, 4, 32),
        Spec((2, 2, 1, 1), 64, 1),
        Spec((1, 2, 2, 1), 64, 1, v1b=True),
        Spec((2, 2), 31, 2),
        Spec((1, 1, 2), 5, 7, 3, se_reduction=4),
        Spec((2,), 26, 4, v1b=True, se_reduction=2),
    ],
    ids=str,
)
def test_networks_outside_the_table(spec):
    backbone = check(spec, options_of(spec), size=(65, 48))
    assert backbone.out_channels == (256, 512, 1024, 2048)[: len(spec.depths)]


def test_base_width_scales_and_cardinality_default_to_26w_4s():
    custom = Res2Net(depths=(1, 1, 1, 1)).state_dict()
    row = Res2Net('res2net50_26w_4s').state_dict()
    assert {k: v.shape for k, v in custom.items()} == {k: row[k].shape for k in custom}


def test_stem_and_shortcut_of_v1b_are_set_apart():
    for stem in (False, True):
        for shortcut in (False, True):
            names = set(Res2Net(depths=(1, 1), deep_stem=stem, avg_down=shortcut).state_dict())
            assert ('conv1.6.weight' in names) is stem
            assert ('conv1.weight' in names) is not stem
            assert ('layer2.0.downsample.2.weight' in names) is shortcut
            assert ('layer2.0.downsample.0.weight' in names) is not shortcut


def test_squeeze_excite_can_be_given_to_any_row():
    spec = SPECS['res2net50_48w_2s']._replace(se_reduction=8)
    check(spec, dict(arch='res2net50_48w_2s', se_reduction=8), modes=['eval'])


def test_squeeze_excite_ends_before_the_addition():
    """With its gate shut the block passes its shortcut on; a gate after the addition would shut that too."""
    block = Res2Net(depths=(2,), se_reduction=16).layer1[1].double().eval()
    torch.nn.init.zeros_(block.se.fc2.weight)
    torch.nn.init.constant_(block.se.fc2.bias, -1e4)  # sigmoid(-1e4) is 0
    x = torch.rand(2, 256, 8, 8, dtype=torch.float64)
    assert torch.equal(block(x), x)


def test_first_block_of_a_32_pixel_stage_is_a_plain_resnext_block():
    backbone = Res2Net('se_res2next29_6c24w4s')
    first, second = backbone.layer2[0], backbone.layer2[1]
    assert (len(first.convs), len(second.convs)) == (1, 3)
    assert (first.convs[0].groups, second.convs[0].groups) == (24, 6)
    assert first.convs[0].out_channels == 128 * 24 // 64 * 6 * 4
    assert not [name for name in first.state_dict() if 'se.' in name]
    assert second.se.fc1.out_channels == 512 // 32
