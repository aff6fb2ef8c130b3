"""One small network of each family, one line each, and what tests ask of them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.models import DenseNetBC, Res2Net, Res2NetDLA, WideResNet
from tests.reference.compare import randomise

SMALL = dict(depths=(1, 2, 1, 2), base_width=8)
FAMILIES = {
    'v1': lambda **kw: Res2Net(**SMALL, **kw),
    'v1b': lambda **kw: Res2Net(**SMALL, deep_stem=True, avg_down=True, **kw),
    'next': lambda **kw: Res2Net(depths=(1, 2, 1, 1), base_width=4, cardinality=8, **kw),
    'se': lambda **kw: Res2Net(**SMALL, se_reduction=16, **kw),
    'cifar': lambda **kw: Res2Net(depths=(2, 1, 2), base_width=6, cardinality=3, se_reduction=32, family='cifar', **kw),
    'dla': lambda **kw: Res2NetDLA('res2net_dla60_4s', **kw), 'dla x': lambda **kw: Res2NetDLA('dla60x', **kw),
    'wide': lambda **kw: WideResNet(10, 2, **kw), 'dense': lambda **kw: DenseNetBC(16, 4, **kw),
}  # fmt: skip
BACKBONES = [name for name in FAMILIES if name not in ('wide', 'dense')]  # with stages that can be frozen


def images(*, channels: int = 3, size: tuple[int, int] = (64, 64), number: int = 2) -> Tensor:
    """Return random images in float64."""
    return torch.randn(number, channels, *size, dtype=torch.float64)


def images_for(model: nn.Module, side: int = 64, number: int = 2) -> Tensor:
    """Return images whose features are as large as those of `side` pixels at a first stride of 4."""
    side = side * getattr(model, 'out_strides', (1,))[0] // 4
    return images(size=(side, side), number=number)


def same_weights(model: nn.Module, other: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return both in float64, with one set of random weights."""
    randomise(model)
    other.double().load_state_dict(model.state_dict(), strict=True)
    return model, other


def blocks(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if hasattr(m, 'conv1') and hasattr(m, 'conv3')]


def stem_of(model: nn.Module) -> list[nn.Module]:
    names = ('base_layer', 'level0', 'level1') if isinstance(model, Res2NetDLA) else ('conv1', 'bn1')
    return [model.get_submodule(name) for name in names]


def stages_of(model: nn.Module) -> list[nn.Module]:
    prefix, first = ('level', 2) if isinstance(model, Res2NetDLA) else ('layer', 1)
    return [m for i in range(4) if (m := getattr(model, f'{prefix}{first + i}', None)) is not None]


def norms_of(*modules: nn.Module) -> list[_BatchNorm]:
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
