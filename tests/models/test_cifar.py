"""Networks for images of 32 pixels: the stages of the CIFAR family, Wide ResNet and DenseNet-BC."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmres2net.models import DenseNetBC, WideResNet
from tests.models.families import images
from tests.reference.compare import assert_same_function, randomise
from tests.reference.complexity import count_parameters


@pytest.mark.parametrize(
    ('kind', 'channels', 'ten', 'printed'), [(WideResNet, 640, 36_479_194, 36.5), (DenseNetBC, 2190, 25_624_430, 25.6)]
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
        parts = ('running_mean', 'running_var', 'weight', 'bias')
        return F.batch_norm(x, *(weights[f'{name}.{part}'] for part in parts)).relu()

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
    x = images(size=(16, 16))
    torch.testing.assert_close(model(x)[0], wide_reference(model.state_dict(), x, 2), rtol=0, atol=1e-10)


def test_densenet_computes_what_timms_does() -> None:
    """timm's DenseNet with a stem for small images."""
    densenet = pytest.importorskip('timm.models.densenet')
    theirs = densenet.DenseNet(growth_rate=6, block_config=(3, 3, 3)).features
    theirs.conv0 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
    theirs.norm0, theirs.pool0 = nn.Identity(), nn.Identity()
    ours = randomise(DenseNetBC(22, 6))
    names = dict(zip(ours.state_dict(), theirs.state_dict(), strict=True))
    theirs.double().load_state_dict({names[name]: value for name, value in ours.state_dict().items()}, strict=True)
    x = images(size=(16, 16))
    assert_same_function(ours, theirs, x, run_theirs=lambda x: (theirs(x),), rename=names.__getitem__)


def test_networks_that_do_not_exist() -> None:
    wide = {(29,): r'depth=29 .* 28 or 34', (4,): 'depth=4 .* 10 or more', (28, 0): 'widen_factor=0'}
    dense = {(100, 2.5): r'growth_rate=2\.5', (191,): 'depth=191 .* 190 or 196'}
    for kind, mistakes in ((WideResNet, wide), (DenseNetBC, dense)):
        for options, message in mistakes.items():
            with pytest.raises(ValueError, match=message):
                kind(*options)
