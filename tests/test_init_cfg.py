"""One answer to "does this load weights?", whatever form a config gives an initializer."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit

from mmres2net.init_cfg import drop_pretrained, loads_weights, pretrained_nodes
from mmres2net.models import Res2Net
from mmres2net.weights.loading import Pretrained

KAIMING = {'type': 'Kaiming', 'layer': 'Conv2d'}
TYPES = ['Pretrained', 'mmengine.Pretrained', 'mmres2net.Pretrained', 'PretrainedInit', PretrainedInit, Pretrained]


class OwnInit(PretrainedInit):
    pass


def forms(node: dict) -> list[Any]:
    return [node, [node], (node,), [KAIMING, node], (KAIMING, node), [node, KAIMING], [[node]]]


@pytest.mark.parametrize('kind', [*TYPES, OwnInit])
def test_every_form_is_seen(kind: Any) -> None:
    for init_cfg in forms({'type': kind, 'checkpoint': 'a.pth'}):
        assert loads_weights(init_cfg)
        model = {'backbone': {'type': 'ResNet', 'init_cfg': init_cfg}, 'heads': [{'init_cfg': KAIMING}]}
        (node,) = pretrained_nodes(model)
        assert node.checkpoint == 'a.pth'
        assert node.path.startswith('model.backbone.init_cfg')


def test_paths_name_the_checkpoint_in_the_config_and_random_initializers_load_nothing() -> None:
    for init_cfg in (None, [], {}, KAIMING, [KAIMING], (KAIMING, KAIMING), {'type': 'TruncNormal'}):
        assert not loads_weights(init_cfg)
        assert list(pretrained_nodes({'backbone': {'init_cfg': init_cfg}})) == []
    node = {'type': 'Pretrained', 'checkpoint': 'a.pth'}
    parts = {'backbone': {'init_cfg': [KAIMING, node]}, 'heads': ({'init_cfg': node},)}
    model = Config({'model': {'pretrained': 'b.pth', **parts}}).model
    found = {node.path: (node.checkpoint, node.is_last) for node in pretrained_nodes(model)}
    assert found == {
        'model.pretrained': ('b.pth', True),
        'model.backbone.init_cfg.1.checkpoint': ('a.pth', True),
        'model.heads.0.init_cfg.checkpoint': ('a.pth', True),
    }
    first = next(pretrained_nodes({'init_cfg': [node, KAIMING]}))
    assert not first.is_last


def test_dropping_keeps_the_other_initializers() -> None:
    node = {'type': PretrainedInit, 'checkpoint': 'a.pth'}
    parts: dict[str, Any] = {'backbone': {'init_cfg': (KAIMING, node)}, 'heads': [{'init_cfg': node}]}
    model = {'pretrained': 'b.pth', 'timm': {'pretrained': True}, **parts}
    drop_pretrained(model)
    parts = {'backbone': {'init_cfg': [KAIMING]}, 'heads': [{'init_cfg': None}]}
    assert model == {'pretrained': None, 'timm': {'pretrained': False}, **parts}


@pytest.mark.parametrize('kind', [kind for kind in TYPES if kind not in ('mmengine.Pretrained', 'PretrainedInit')])
def test_zero_initialization_leaves_loaded_weights(kind: Any, tmp_path: Any) -> None:
    trained = Res2Net(depths=(1, 1), base_width=8)
    for parameter in trained.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    torch.save(trained.state_dict(), tmp_path / 'a.pth')
    for init_cfg in forms({'type': kind, 'checkpoint': f'{tmp_path}/a.pth'})[:5]:
        network = Res2Net(depths=(1, 1), base_width=8, zero_init_residual=True, init_cfg=init_cfg)
        network.init_weights()
        assert all(torch.equal(value, trained.state_dict()[name]) for name, value in network.state_dict().items())


def test_initialization_happens_once() -> None:
    for init_cfg in (None, (KAIMING,), [KAIMING]):
        network = Res2Net(depths=(1, 1), base_width=8, zero_init_residual=True, init_cfg=init_cfg)
        network.init_weights()
        last_norm = network.layer1[0].bn3.weight
        assert not last_norm.any()
        torch.nn.init.ones_(last_norm)
        network.init_weights()
        assert last_norm.all()
