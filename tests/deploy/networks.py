"""Small networks, the comparison of their features, and what users do to them: changed weights, patches, hooks."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.utils import parametrize, prune

from mmres2net.deploy import use_fused_blocks
from mmres2net.models import ARCHS, Res2Net, Res2NetDLA
from tests.reference.compare import random_network

SMALL: dict[str, Any] = dict(depths=(1, 2, 2), base_width=10, scales=4)
TOLERANCE = 1e-5  # of a feature's largest value
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, **options: Any) -> nn.Module:
    options = {**SMALL, **options} if 'arch' not in options else options
    kind = Res2NetDLA if 'arch' in options and ARCHS[options['arch']].family == 'dla' else Res2Net
    return random_network(lambda: kind(**options), seed).float().eval()


def pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    plain = network(**options)
    fused = copy.deepcopy(plain)
    assert use_fused_blocks(fused) > 0
    return plain, fused


def features(model: nn.Module, x: Tensor = IMAGE) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model(x)


def assert_close(got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


def assert_same(model: nn.Module, plain: nn.Module, x: Tensor = IMAGE, tolerance: float = TOLERANCE) -> None:
    for got, wanted in zip(features(model, x), features(plain, x), strict=True):
        assert_close(got, wanted, tolerance)


CHANGES = ('in place', 'statistics', 'data', 'convolution', 'options', 'assigned')


@torch.no_grad()
def change(how: str, model: nn.Module) -> None:
    block = model.layer1[0]
    if how in ('in place', 'data'):
        for parameter in model.parameters():
            (parameter if how == 'in place' else parameter.data).mul_(0.9)
        if how == 'data':
            model.eval()  # the write itself leaves no trace
    elif how == 'statistics':
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(0.1)
    elif how == 'convolution':
        torch.manual_seed(3)
        block.conv1 = nn.Conv2d(64, 40, 1, bias=False)
    elif how == 'options':
        model.layer3[1].convs[0].dilation = model.layer3[1].convs[0].padding = (2, 2)
        block.bn3.eps = 0.5
    else:
        model.load_state_dict(network(seed=2).state_dict(), assign=True)


def subclassed(model: nn.Module, kind: type) -> None:
    other = type(kind.__name__, (kind,), {'forward': lambda self, x: kind.forward(self, x) * 0.9})
    for module in list(model.modules()):
        if type(module) is kind:
            module.__class__ = other


def patched_norm(model: nn.Module) -> None:
    usual = model.layer2[1].bns[1].forward
    model.layer2[1].bns[1].forward = lambda x: usual(x) + 1


def hooked(model: nn.Module) -> None:
    model.layer2[1].bns[0].register_forward_hook(lambda module, inputs, out: out + 1)
    for module in (model.layer3, model.bn1):
        module.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)


def reflecting(model: nn.Module) -> None:
    conv = nn.Conv2d(20, 20, 3, padding=1, bias=False, padding_mode='reflect')
    conv.weight, model.layer2[1].convs[0] = model.layer2[1].convs[0].weight, conv


MODIFICATIONS: dict[str, Callable[[nn.Module], object]] = {
    'relus': partial(subclassed, kind=nn.ReLU), 'norms': partial(subclassed, kind=nn.BatchNorm2d),
    'convolutions': partial(subclassed, kind=nn.Conv2d),
    'parametrized': lambda m: parametrize.register_parametrization(m.layer2[1].convs[0], 'weight', nn.Tanh()),
    'pruned': lambda m: prune.l1_unstructured(m.layer2[1].conv3, 'weight', 0.5), 'patched norm': patched_norm,
    'patched convolution': lambda m: setattr(m.layer1[0].conv1, '_conv_forward', lambda x, w, b: conv2d(x, w * 2, b)),
    'patched block': lambda m: setattr(m.layer3[1], '_multi_scale', lambda x: x),
    'patched class': lambda m: None,  # see modify
    'hooks': hooked, 'norm on the batch': lambda m: m.layer2[1].bn1.train(),
    'norm without statistics': lambda m: setattr(m.layer2[1], 'bn1', nn.BatchNorm2d(80, 1e-5, 0.1, True, False).eval()),
    'same padding': lambda m: setattr(m.layer2[1].convs[0], 'padding', 'same'), 'reflecting': reflecting,
}  # fmt: skip


def modify(how: str, patch: pytest.MonkeyPatch, *models: nn.Module) -> None:
    if how == 'patched class':
        usual = nn.BatchNorm2d.forward
        patch.setattr(nn.BatchNorm2d, 'forward', lambda self, x: usual(self, x) + 1)
    for model in models:
        MODIFICATIONS[how](model)
