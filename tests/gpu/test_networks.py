"""Backbones on a GPU: as on a CPU in float64, and as exact as their number formats are."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mmres2net.deploy import fuse, use_fused_blocks
from mmres2net.engine.speed import speed_up
from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.gpu.compare import bound, error
from tests.models.families import FAMILIES, images, images_for
from tests.reference.compare import random_network, randomise

pytestmark = pytest.mark.gpu
LAST = torch.channels_last


@torch.no_grad()
def run(network: nn.Module, x: Tensor, device: str) -> tuple[Tensor, ...]:
    """Return the features of images on a device."""
    return network.to(device)(x.to(device))


@pytest.mark.parametrize('name', ARCHS)
def test_every_network(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(lambda: (Res2NetDLA if 'dla' in name else Res2Net)(name)).eval()
    x = images(size=(64, 96) if 'dla' in name else (16, 24) if ARCHS[name].family == 'cifar' else (65, 97))
    wanted = run(network, x, 'cpu')
    assert error(run(network, x, device), wanted) < 1e-10
    network, x = network.float(), x.float()
    rounded = error(run(network, x, 'cpu'), wanted)
    assert error(run(network, x, device), wanted) < bound(rounded)
    with torch.autocast(device, torch.bfloat16):
        found = error(run(network, x, device), wanted)
    assert rounded < found < bound(rounded, 'bfloat16')  # bfloat16 it was
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', True)
    assert error(run(network, x, device), wanted) < bound(rounded, 'tf32')


@pytest.mark.parametrize('name', FAMILIES)
def test_what_changes_no_result(name: str, device: str) -> None:
    """Fused copies, channels_last, and what a CPU runs faster, which leaves a GPU alone."""
    network = randomise(FAMILIES[name]()).eval()
    x = images_for(network)
    wanted = run(network, x, 'cpu')
    network = network.to(device)
    assert error(run(fuse(network).to(memory_format=LAST), x.contiguous(memory_format=LAST), device), wanted) < 1e-9
    network, x = network.float(), x.float()
    rounded = error(run(copy.deepcopy(network), x, 'cpu'), wanted)
    changed = copy.deepcopy(network).to(device)
    use_fused_blocks(changed)
    assert device == 'cpu' or speed_up(changed, device) == []
    assert error(run(changed, x, device), wanted) < bound(rounded)
    assert error(run(fuse(network), x, device), wanted) < bound(rounded)


@pytest.mark.parametrize('options', [{}, {'with_cp': True}], ids=str)
@pytest.mark.parametrize('name', [name for name in FAMILIES if name != 'wide'])
def test_gradients_and_statistics(name: str, options: dict, device: str) -> None:
    network = randomise(FAMILIES[name](**options)).train()
    x, found = images_for(network), {}
    for where in ('cpu', device):
        model = copy.deepcopy(network).to(where)
        sum(out.square().mean() for out in model(x.to(where))).backward()
        found[where] = [*(p.grad for p in model.parameters()), *(b.double() for b in model.buffers())]
    assert error(found[device], found['cpu']) < 1e-8


@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
def test_compiled(mode: str, device: str) -> None:
    """By the compiler, and as CUDA graphs; gradients of a compiled step too."""
    network = randomise(Res2Net(depths=(1, 2), base_width=8)).eval()
    x = images()
    wanted = run(network, x, 'cpu')
    network, x = network.float(), x.float()
    rounded, network = error(run(network, x, 'cpu'), wanted), network.to(device)
    compiled = torch.compile(network, mode=mode)
    for _ in range(3):  # CUDA graphs are recorded in the second
        assert error(run(compiled, x, device), wanted) < bound(rounded)
    gradients = []
    for model in (network, compiled):
        network.zero_grad()
        sum(out.square().mean() for out in model(x.to(device))).backward()
        gradients.append([p.grad.double().cpu().clone() for p in network.parameters()])
    assert error(*gradients) < bound(10 * rounded)
