"""Names of classes and layers, and what is said where they mean nothing."""

import pytest
from torch import nn

from mmres2net.cam.names import label_of, last_stage, layer_named
from mmres2net.errors import UserError
from mmres2net.models import Res2Net, Res2NetDLA

NAMES = ('tench, Tinca tinca', 'great white shark, white shark', 'crane', 'crane', '7')
NO_CLASSES = {'tensh': 'tench', 'shark': 'white shark', 'crane': '2 .*3', '5': '0 to 4', '-1': '-1'}
LABELS = {'tench': 0, 'Tinca Tinca': 0, 'tench, tinca tinca': 0, 'white shark': 1, '3': 3, '7': 4}  # name before number


def test_classes_by_name_or_number() -> None:
    assert {text: label_of(text, NAMES, 5, 'resnet50') for text in LABELS} == LABELS
    for text, named in NO_CLASSES.items():
        with pytest.raises(UserError, match=named):
            label_of(text, NAMES, 5, 'resnet50')
    with pytest.raises(UserError):
        label_of('tench', (), 5, 'resnet50')


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.data_preprocessor, self.backbone, self.head = nn.Identity(), backbone, nn.Linear(1, 1)


def test_layers_by_name_and_the_last_stage() -> None:
    model = Model(Res2Net(depths=(1, 1, 1, 1)))
    assert layer_named(model, 'backbone.layer3.0.conv3') == 'backbone.layer3.0.conv3'
    assert layer_named(model, 'layer4') == 'backbone.layer4'
    for text, named in (('layr4', r'layr4.*backbone\.layer4'), ('q', r'backbone, head, backbone\.conv1')):
        with pytest.raises(UserError, match=named):
            layer_named(model, text)
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1)))) == 'backbone.layer4'
    assert last_stage(Model(Res2Net(depths=(1, 1, 1, 1), out_indices=(0, 2)))) == 'backbone.layer3'
    assert last_stage(Model(Res2NetDLA('res2net_dla60_4s'))) == 'backbone.level5'
    with pytest.raises(UserError, match=r'Sequential.*backbone\.0'):
        last_stage(Model(nn.Sequential(nn.ReLU())))
    models = pytest.importorskip('mmpretrain.models')
    assert last_stage(Model(models.ResNet(depth=50, out_indices=(0, 2)))) == 'backbone.layer3'
    assert last_stage(Model(models.DenseNet(arch='121'))) == 'backbone.transitions.3'
