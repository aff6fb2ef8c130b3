"""``mmres2net.Pretrained``: a network starts from the file, all of it, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import nn

from mmres2net.errors import UserError
from mmres2net.models import Res2Net, Res2NetDLA
from mmres2net.registry import MODELS, WEIGHT_INITIALIZERS
from mmres2net.weights.loading import Pretrained
from tests.support.hostile import hostile

SMALL = 'res2net50_18w_4s'


@cache
def source(arch: str = SMALL) -> Res2Net:
    """A network whose every tensor differs from what an initialiser would give."""
    torch.manual_seed(1)
    net = Res2Net(arch)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(5))
    return net


def saved(path: Path, change: Callable[[dict[str, Any]], Any] = lambda state: state, **options: Any) -> str:
    torch.save(change(dict(source(**options).state_dict())), path)
    return str(path)


def start(checkpoint: str, kind: str = 'mmres2net.Res2Net', arch: str = SMALL, **options: Any) -> nn.Module:
    given = {key: options.pop(key) for key in ('prefix', 'random_ok') if key in options}
    init_cfg = dict(type='mmres2net.Pretrained', checkpoint=checkpoint, **given)
    net = MODELS.build(dict(type=kind, arch=arch, init_cfg=init_cfg, **options))
    net.init_weights()
    return net


def check_same(net: nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    found = net.state_dict()
    assert found
    assert [name for name, tensor in found.items() if not torch.equal(tensor, wanted[name])] == []


def test_every_tensor_is_the_files(tmp_path: Path) -> None:
    check_same(start(saved(tmp_path / 'net.pth')), source().state_dict())
    wanted = Res2NetDLA('res2net_dla60_4s').state_dict()
    torch.save(wanted, tmp_path / 'net.pth')
    check_same(start(str(tmp_path / 'net.pth'), kind='mmres2net.Res2NetDLA', arch='res2net_dla60_4s'), wanted)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_resolves_under_every_library(tmp_path: Path, scope: str) -> None:
    with DefaultScope.overwrite_default_scope(scope):
        assert type(WEIGHT_INITIALIZERS.build(dict(type='mmres2net.Pretrained', checkpoint='a'))) is Pretrained
        init_cfg = dict(type='mmres2net.Pretrained', checkpoint=saved(tmp_path / 'net.pth'))
        net = ROOT.build(dict(type='mmres2net.Res2Net', arch=SMALL, init_cfg=init_cfg))
        net.init_weights()
    check_same(net, source().state_dict())


def test_files_that_hold_more_than_the_network(tmp_path: Path) -> None:
    def detector(state: dict[str, Any]) -> dict[str, Any]:
        renamed = {f'module.backbone.{name}': tensor for name, tensor in state.items()}
        return {'state_dict': {**renamed, 'module.neck.conv.weight': torch.ones(1)}, 'meta': {'epoch': 1}}

    wanted, path = source().state_dict(), saved(tmp_path / 'detector.pth', detector)
    check_same(start(path), wanted)
    check_same(start(path, prefix='backbone.'), wanted)
    classifier = {'fc.weight': torch.ones(1000, 2048), 'fc.bias': torch.ones(1000)}
    check_same(start(saved(tmp_path / 'net.pth', lambda state: state | classifier)), wanted)
    path = saved(tmp_path / 'net.pth')
    check_same(start(path, out_indices=(2,)), wanted)
    check_same(start(path, kind='mmres2net.Res2LayerHead', stage=3, stride=2), wanted)


@pytest.mark.parametrize('name', ['conv1.weight', 'layer3.2.bns.1.running_var', 'layer2.0.downsample.1.weight'])
def test_nothing_stays_random_unnamed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / 'net.pth', lambda state: {key: value for key, value in state.items() if key != name})
    net = Res2Net(SMALL)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match='no stem' if name == 'conv1.weight' else name) as caught:
        Pretrained(path)(net)
    assert path in str(caught.value)
    check_same(net, before)
    if name != 'conv1.weight':  # without it the file is of no network
        Pretrained(path, random_ok=[name])(net)
        check_same(net, {**source().state_dict(), name: before[name]})


def test_hostile_file_and_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'posix\.system'):
        start(str(hostile(tmp_path / 'net.pth', tmp_path / 'marker')))
    assert not (tmp_path / 'marker').exists()
    with pytest.raises(UserError, match='checkpoint=None'):
        Pretrained(None)  # type: ignore[arg-type]
