"""Networks for images of 32 pixels: the CIFAR family outside the table, Wide ResNet and DenseNet-BC."""

import pytest
import torch
from timm.models.densenet import DenseNet
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmres2net.engine.speed import speed_up
from mmres2net.models import ARCHS, DenseNetBC, Res2Net, WideResNet
from tests.reference.compare import assert_same_function, randomise
from tests.reference.complexity import count_parameters

CIFAR_ROWS = [name for name, row in ARCHS.items() if row.family == 'cifar']


# The family outside the table ---------------------------------------------------------------------------------------


def numbers_of(name: str) -> dict:
    row = ARCHS[name]
    return dict(
        depths=row.depths,
        base_width=row.base_width,
        scales=row.scales,
        cardinality=row.cardinality,
        se_reduction=row.se_reduction,
        family='cifar',
    )


@pytest.mark.parametrize('name', CIFAR_ROWS)
def test_numbers_of_a_row_give_its_network(name: str) -> None:
    with torch.device('meta'):
        row, custom = Res2Net(name), Res2Net(**numbers_of(name))
    assert {k: v.shape for k, v in custom.state_dict().items()} == {k: v.shape for k, v in row.state_dict().items()}
    assert (custom.out_channels, custom.out_strides) == (row.out_channels, row.out_strides)


def test_family_is_of_large_images_unless_said() -> None:
    with torch.device('meta'):
        default, large = Res2Net(depths=(1, 1)), Res2Net(depths=(1, 1), family='res2net')
        small = Res2Net(depths=(1, 1), family='cifar')
    assert default.conv1.weight.shape == large.conv1.weight.shape == (64, 3, 7, 7)
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert (default.out_strides, small.out_strides) == ((4, 8), (1, 2))
    assert small.layer1[0].convs[0].weight.shape == (104, 26, 3, 3)  # a plain ResNeXt block of the same width


@pytest.mark.parametrize(
    ('options', 'parts'),
    [
        (dict(arch='res2next29_6c24w4s', family='cifar'), ['res2next29_6c24w4s', 'leave out family']),
        (dict(family='cifar'), ['give arch', 'depths']),
        (dict(depths=(1, 1), family='dla'), ["'dla'", "('res2net', 'cifar')", 'arch']),
        (dict(depths=(1, 1), family='cifar100'), ["'cifar100'", "('res2net', 'cifar')"]),
        (dict(depths=(1, 1), family=['cifar']), ["['cifar']", "('res2net', 'cifar')"]),
        (dict(depths=(1, 1, 1, 1), family='cifar'), ['4 stages', "'cifar'", '1 to 3']),
        (dict(depths=(1, 1, 1), family='cifar', output_stride=8), ['output_stride=8', 'four stages']),
    ],
)
def test_mistakes_with_the_family_are_one_error(options: dict, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r'.') as caught:
        Res2Net(**options)
    assert [part for part in parts if part not in str(caught.value)] == []


# The other networks of table 4 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'channels', 'ten', 'printed'),
    [(WideResNet, 640, 36_479_194, 36.5), (DenseNetBC, 2190, 25_624_430, 25.6)],
)
def test_sizes_are_those_of_table_4(kind: type[nn.Module], channels: int, ten: int, printed: float) -> None:
    """With a classifier of 10 classes, to the unit as their papers' authors have them."""
    with torch.device('meta'):
        model = kind()
        (out,) = model(torch.empty(1, 3, 32, 32))
    assert (model.out_channels, tuple(out.shape)) == ((channels,), (1, channels, 8, 8))
    assert count_parameters(model) + (channels + 1) * 10 == ten
    assert round(ten / 1e6, 1) == printed


def wide_reference(weights: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """Wide ResNet in evaluation mode, written out from its paper."""

    def active(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f'{name}.running_mean'], weights[f'{name}.running_var']
        shape = (1, -1, 1, 1)
        scaled = (x - mean.view(shape)) / (var.view(shape) + 1e-5) ** 0.5
        return (scaled * weights[f'{name}.weight'].view(shape) + weights[f'{name}.bias'].view(shape)).clamp(min=0)

    x = F.conv2d(x, weights['conv1.weight'], padding=1)
    for stage in (1, 2, 3):
        for i in range(blocks):
            name = f'layer{stage}.{i}'
            stride = 2 if stage > 1 and i == 0 else 1
            opened = active(x, f'{name}.bn1')
            inner = active(F.conv2d(opened, weights[f'{name}.conv1.weight'], stride=stride, padding=1), f'{name}.bn2')
            inner = F.conv2d(inner, weights[f'{name}.conv2.weight'], padding=1)
            x = (F.conv2d(opened, weights[f'{name}.shortcut.weight'], stride=stride) if i == 0 else x) + inner
    return active(x, 'bn1')


def test_wide_resnet_computes_what_its_paper_says() -> None:
    model = randomise(WideResNet(16, 2)).eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x)[0], wide_reference(model.state_dict(), x, 2), rtol=0, atol=1e-10)


def timm_densenet(growth_rate: int, layers: int) -> nn.Module:
    """timm's DenseNet behind a stem for small images."""
    features = DenseNet(growth_rate=growth_rate, block_config=(layers,) * 3).features
    features.conv0 = nn.Conv2d(3, 2 * growth_rate, 3, padding=1, bias=False)
    features.norm0, features.pool0 = nn.Identity(), nn.Identity()
    return features


def test_densenet_computes_what_timms_does() -> None:
    ours, theirs = randomise(DenseNetBC(22, 6)), timm_densenet(6, 3).double()
    names = dict(zip(ours.state_dict(), theirs.state_dict(), strict=True))
    theirs.load_state_dict({names[name]: value for name, value in ours.state_dict().items()}, strict=True)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert_same_function(ours, theirs, x, run_theirs=lambda x: (theirs(x),), rename=names.__getitem__)


def test_recomputing_densenet_is_exact() -> None:
    plain, saving = DenseNetBC(16, 4), DenseNetBC(16, 4, with_cp=True)
    randomise(plain)
    saving.double().load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for model in (plain, saving):
        model.train()(x)[0].square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), saving.parameters(), strict=True))
    for (name, a), b in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize('build', [lambda: WideResNet(10, 2), lambda: DenseNetBC(16, 4)], ids=['wide', 'dense'])
def test_sped_up_it_computes_the_same(build) -> None:
    """Training and testing speed up every model on the CPU."""
    plain, fast = randomise(build()), build().double()
    fast.load_state_dict(plain.state_dict())
    speed_up(fast)
    assert_same_function(fast, plain, torch.randn(2, 3, 16, 16, dtype=torch.float64))


@pytest.mark.parametrize('kind', [WideResNet, DenseNetBC])
def test_random_weights_are_drawn_as_in_resnets(kind: type[nn.Module]) -> None:
    """Kaiming normal by fan out: a 3x3 convolution to 64 channels has a deviation of sqrt(2 / 576)."""
    model = kind(10, 16)
    model.init_weights()
    conv = model.layer1[0].conv1 if kind is WideResNet else model.block3[0].conv1
    expected = (2 / (conv.kernel_size[0] ** 2 * conv.out_channels)) ** 0.5
    assert abs(conv.weight.std().item() / expected - 1) < 0.1
    assert all(bool((m.weight == 1).all()) for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: WideResNet(29), r'depth=29 must be 4 more than a multiple of 6, such as 28 or 34'),
        (lambda: WideResNet(4), r'depth=4 must be a whole number of 10 or more'),
        (lambda: WideResNet(28, 0), r'widen_factor=0 must be a whole number of 1 or more'),
        (lambda: DenseNetBC(100, 2.5), r'growth_rate=2\.5 must be a whole number'),
        (lambda: DenseNetBC(191), r'depth=191 must be 4 more than a multiple of 6, such as 190 or 196'),
    ],
)
def test_networks_that_do_not_exist_are_one_error(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
