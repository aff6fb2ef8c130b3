"""Equal to independent implementations with the same random weights, in float64: features, gradients, statistics.

The networks of the table are compared with timm's, or else with `tests/reference`; options on small networks.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.models.families import images
from tests.reference.compare import assert_same_function, largest_difference, random_network, randomise, with_weights
from tests.reference.res2net import POOL_MODES, SPECS, TIMM_NAMES, ReferenceRes2Net, Spec, output_stride_kwargs
from tests.support.timm_models import DLA, dla_features, resnet_features

timm = pytest.importorskip('timm')
SEModule = pytest.importorskip('timm.layers').SEModule
PLAN = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def check_timm(ours: Callable[[], nn.Module], theirs: str, x: Tensor, modes: list[str], **options: object) -> nn.Module:
    """Compare a network with timm's, whose weights fit strictly by name; only the classifier is left out."""
    model = random_network(lambda: timm.create_model(theirs, pretrained=False, num_classes=0, **options))
    backbone = with_weights(ours, model.state_dict())
    features = dla_features if theirs in DLA.values() else resnet_features
    assert_same_function(backbone, model, x, run_theirs=features(model), modes=modes)
    return backbone


@pytest.mark.parametrize('name', [*TIMM_NAMES, 'se_res2net50_26w_4s', *DLA])
def test_every_network_that_timm_has(name: str) -> None:
    modes = ['eval', 'train'] if name in ('res2net50_26w_4s', 'res2net_dla60_4s') else ['eval']
    options = dict(block_args=dict(scale=4, attn_layer=SEModule)) if name.startswith('se_') else {}
    theirs = {**TIMM_NAMES, **DLA}.get(name, 'res2net50_26w_4s')
    kind = Res2NetDLA if name in DLA else Res2Net
    check_timm(lambda: kind(name), theirs, images(size=(32, 64)), modes, **options)  # timm's DLA takes multiples of 32


SMALL = dict(layers=(1, 2, 2, 3), base_width=8)
TIMM_SMALL = {  # our options, timm's
    'v1': ({}, SMALL),
    'v1b': (dict(deep_stem=True, avg_down=True), dict(SMALL, stem_width=32, stem_type='deep', avg_down=True)),
    'next': (dict(base_width=4, cardinality=4), dict(SMALL, base_width=4, cardinality=4)),
    'se': (dict(se_reduction=16), dict(SMALL, block_args=dict(scale=4, attn_layer=SEModule))),
}


@pytest.mark.parametrize('output_stride', [8, 16, 32])
@pytest.mark.parametrize('small', TIMM_SMALL)
def test_output_strides(small: str, output_stride: int) -> None:
    ours, theirs = TIMM_SMALL[small]
    options = dict(depths=(1, 2, 2, 3), base_width=8, output_stride=output_stride) | ours
    theirs = dict(theirs, output_stride=output_stride)
    check = partial(check_timm, lambda: Res2Net(**options), 'res2net50_26w_4s')
    backbone = check(images(size=(33, 50)), ['eval', 'train'], **theirs)
    assert backbone.out_strides == tuple(min(s, output_stride) for s in (4, 8, 16, 32))


MMDET_STEM = {**{f'conv1.{i}': f'stem.{i}' for i in (0, 1, 3, 4, 6)}, 'bn1': 'stem.7'}
MMPRETRAIN_STEM = {
    'conv1.0': 'stem.0.conv', 'conv1.1': 'stem.0.bn', 'conv1.3': 'stem.1.conv', 'conv1.4': 'stem.1.bn',
    'conv1.6': 'stem.2.conv', 'bn1': 'stem.2.bn',
}  # fmt: skip


def their_name(name: str, stem: dict[str, str]) -> str:
    """Return the library's name of one of our parameters; it names the layers of a deep stem otherwise."""
    layer, parameter = name.rsplit('.', 1)
    return f'{stem.get(layer, layer)}.{parameter}'


def library_pair(
    theirs: Callable[[], nn.Module], stem: dict[str, str], **options: object
) -> tuple[nn.Module, nn.Module]:
    """Return our network and a library's, with the same random weights: all of them are in both."""
    other = randomise(theirs())  # mmpretrain's cannot be built on the meta device
    state = other.state_dict()
    with torch.device('meta'):
        names = Res2Net(**options).state_dict()
    assert len(names) == len(state)
    return with_weights(lambda: Res2Net(**options), {name: state[their_name(name, stem)] for name in names}), other


@pytest.mark.parametrize(
    ('options', 'stem'),
    [
        (dict(deep_stem=False, avg_down=False, **PLAN), {}),
        (dict(deep_stem=True, avg_down=True, base_channels=32), MMPRETRAIN_STEM),
    ],
    ids=['v1 dilated', 'v1b of half the channels'],
)
def test_mmpretrain(options: dict, stem: dict[str, str]) -> None:
    library = pytest.importorskip('mmpretrain.models.backbones')
    channels = options.get('base_channels', 64)
    # The width of its splits is that of the first stage, ours that of 64 planes.
    width = dict(base_width=26 * channels // 64, stem_channels=channels)
    build = partial(library.Res2Net, depth=50, scales=4, out_indices=(0, 1, 2, 3), **width, **options)
    ours, theirs = library_pair(build, stem, depths=(3, 4, 6, 3), **options)
    assert_same_function(ours, theirs, images(size=(33, 50)), rename=lambda name: their_name(name, stem))


@pytest.mark.parametrize('plan', [{}, PLAN], ids=['strided', 'dilated'])
def test_mmdet(plan: dict) -> None:
    """Equal under its own stage pool; under the official one, other numbers from the first stage on."""
    library = pytest.importorskip('mmdet.models.backbones')
    arch = 'res2net50_v1b_26w_4s'
    build = partial(library.Res2Net, depth=50, base_width=26, scales=4, norm_eval=False, **plan)
    ours, theirs = library_pair(build, MMDET_STEM, arch=arch, stage_pool='mmdet', **plan)
    x = images(size=(33, 50))
    assert_same_function(ours, theirs, x, rename=lambda name: their_name(name, MMDET_STEM))
    official = with_weights(lambda: Res2Net(arch, **plan), ours.state_dict()).eval()
    theirs.eval()  # which returns nothing
    with torch.no_grad():
        for out, expected in zip(official(x), theirs(x), strict=True):
            assert largest_difference([out], [expected]) > 0.01


V1 = Spec((2, 2, 2, 3), base_width=8)
SPECS_SMALL = {
    'v1': V1, 'v1b': V1._replace(v1b=True), 'two scales': V1._replace(scales=2),
    'cardinality': V1._replace(base_width=4, cardinality=4), 'SE v1b': V1._replace(v1b=True, se_reduction=16),
}  # fmt: skip


def check(
    spec: Spec, options: dict, *, size: tuple[int, int] = (33, 49), modes=('eval', 'train'), **theirs
) -> nn.Module:
    """Compare the network of `options` with the reference of `spec` and `theirs`."""
    reference = random_network(lambda: ReferenceRes2Net(spec, **theirs))
    backbone = with_weights(lambda: Res2Net(**options), reference.state_dict())
    assert_same_function(backbone, reference, images(size=size), modes=modes)
    return backbone


def options_of(spec: Spec, **more: object) -> dict:
    options = spec._asdict()
    v1b, _ = options.pop('v1b'), options.pop('cifar')
    return dict(options, deep_stem=v1b, avg_down=v1b, **more)


def features(weights: dict[str, Tensor], x: Tensor, **options: object) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return with_weights(lambda: Res2Net(**options), weights).eval()(x)


@pytest.mark.parametrize('name', [n for n in SPECS if n not in (*TIMM_NAMES, 'se_res2net50_26w_4s')])
def test_every_network_that_timm_lacks(name: str) -> None:
    spec = SPECS[name]
    modes = ['eval', 'train'] if name in ('res2net50_18w_4s', 'se_res2next29_6c24w4s') else ['eval']
    check(spec, dict(arch=name), size=(7, 10) if spec.cifar else (33, 49), modes=modes)


def test_every_network_is_compared() -> None:
    assert {*SPECS, *DLA} == set(ARCHS)


@pytest.mark.parametrize('mode', POOL_MODES)
@pytest.mark.parametrize('name', SPECS_SMALL)
def test_stage_pools(name: str, mode: str) -> None:
    spec = SPECS_SMALL[name]
    check(spec, options_of(spec, stage_pool=mode), size=(33, 50), mode=mode)


@pytest.mark.parametrize('mode', ['official', 'mmdet'])
@pytest.mark.parametrize('contract', [False, True])
@pytest.mark.parametrize('name', ['v1', 'v1b'])
def test_dilations_contracted_or_not(name: str, contract: bool, mode: str) -> None:
    spec = SPECS_SMALL[name]
    options = options_of(spec, stage_pool=mode, contract_dilation=contract, **PLAN)
    check(spec, options, mode=mode, contract=contract, **PLAN)


@pytest.mark.parametrize('contract', [False, True])
def test_dilations_beside_strides(contract: bool) -> None:
    """A dilated stage that keeps its stride: only its 3x3 convolutions change."""
    spec, plan = SPECS_SMALL['v1b'], dict(dilations=(2, 3, 1, 2))
    check(spec, options_of(spec, contract_dilation=contract, **plan), contract=contract, **plan)


@pytest.mark.parametrize(('grid', 'output_stride'), [((2, 4, 8), None), ((3, 1, 2), 8), ((2, 4, 8), 16)], ids=str)
def test_multi_grid(grid: tuple[int, ...], output_stride: int | None) -> None:
    options = options_of(V1, output_stride=output_stride, multi_grid=grid)
    theirs = output_stride_kwargs(output_stride) if output_stride else {}
    check(V1, options, size=(32, 65), modes=['eval'], multi_grid=grid, **theirs)


OUTSIDE = [
    Spec((2, 1, 3, 1), 10, 3), Spec((1, 2, 1, 1), 26, 5), Spec((1, 2, 2), 4, 4, 32), Spec((2, 2), 31, 2),
    Spec((1, 2, 2, 1), 64, 1, v1b=True), Spec((1, 1, 2), 5, 7, 3, se_reduction=4),
    Spec((2,), 26, 4, v1b=True, se_reduction=2),
]  # fmt: skip


@pytest.mark.parametrize('spec', OUTSIDE, ids=str)
def test_networks_outside_the_table(spec: Spec) -> None:
    backbone = check(spec, options_of(spec), size=(33, 48))
    assert backbone.out_channels == (256, 512, 1024, 2048)[: len(spec.depths)]


def test_one_split_is_torchvisions_resnet50() -> None:
    """scales=1, base width 64 and cardinality 1."""
    import torchvision

    other = random_network(lambda: torchvision.models.resnet50(weights=None))

    def theirs(name: str) -> str:
        return name.replace('convs.0.', 'conv2.').replace('bns.0.', 'bn2.')

    state, options = other.state_dict(), dict(depths=(3, 4, 6, 3), base_width=64, scales=1)
    with torch.device('meta'):
        names = Res2Net(**options).state_dict()
    model = with_weights(lambda: Res2Net(**options), {name: state[theirs(name)] for name in names})
    other.act1 = other.relu
    assert_same_function(model, other, images(size=(33, 49)), run_theirs=resnet_features(other), rename=theirs)
