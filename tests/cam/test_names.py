"""Names of classes and layers, and what is said where they mean nothing."""

import pytest
from torch import nn

from mmres2net.cam.names import label_of, last_stage, layer_named
from mmres2net.errors import UserError
from mmres2net.models import Res2Net, Res2NetDLA

NAMES = ('tench, Tinca tinca', 'great white shark, white shark', 'crane', 'crane', '7')


@pytest.mark.parametrize(
    ('text', 'label'),
    [
        ('tench', 0),
        ('Tinca Tinca', 0),
        ('tench, tinca tinca', 0),
        ('white shark', 1),
        ('3', 3),
        ('7', 4),  # a name before a number
    ],
)
def test_a_class_by_name_or_number(text: str, label: int) -> None:
    assert label_of(text, NAMES, 5, 'resnet50') == label


@pytest.mark.parametrize(
    ('text', 'names', 'message'),
    [
        ('tensh', NAMES, 'tench'),
        ('shark', NAMES, 'white shark, great white shark'),
        ('zebra', NAMES, 'Tinca tinca'),
        ('crane', NAMES, r'2 \(crane\), 3 \(crane\)'),
        ('5', NAMES, '0 to 4'),
        ('-1', NAMES, '-1'),
        ('tench', (), 'below 5'),
    ],
)
def test_no_class(text: str, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_of(text, names, 5, 'resnet50')


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.data_preprocessor, self.backbone, self.head = nn.Identity(), backbone, nn.Linear(1, 1)


def test_layers_by_name() -> None:
    model = Model(Res2Net(depths=(1, 1, 1, 1)))
    assert layer_named(model, 'backbone.layer3.0.conv3') == 'backbone.layer3.0.conv3'
    assert layer_named(model, 'layer4') == 'backbone.layer4'
    with pytest.raises(UserError, match=r'layr4.*backbone\.layer4'):
        layer_named(model, 'layr4')
    with pytest.raises(UserError, match=r'backbone, head, backbone\.conv1'):
        layer_named(model, 'q')


def test_the_last_stage() -> None:
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1)))) == 'backbone.layer4'
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1), out_indices=(0, 2)))) == 'backbone.layer3'
    assert last_stage(Model(Res2NetDLA('res2net_dla60_4s'))) == 'backbone.level5'
    with pytest.raises(UserError, match=r'Sequential.*backbone\.0'):
        last_stage(Model(nn.Sequential(nn.ReLU())))


@pytest.mark.parametrize(
    ('kind', 'options', 'layer'),
    [
        ('ResNet', dict(depth=50, out_indices=(3,)), 'backbone.layer4'),
        ('ResNet', dict(depth=50, out_indices=(0, 2)), 'backbone.layer3'),
        ('DenseNet', dict(arch='121'), 'backbone.transitions.3'),
    ],
)
def test_the_last_stage_of_the_hosts(kind: str, options: dict, layer: str) -> None:
    models = pytest.importorskip('mmpretrain.models')
    assert last_stage(Model(getattr(models, kind)(**options))) == layer
