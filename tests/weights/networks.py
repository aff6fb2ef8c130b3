"""Weights for tests: of the right names and shapes, each tensor with a value of its own, and next to no memory."""

from functools import cache

import torch
from torch import Tensor, nn

from mmres2net.models import ARCHS, Res2Net, Res2NetDLA


def build(arch: str, **options) -> nn.Module:
    return (Res2NetDLA if ARCHS[arch].family == 'dla' else Res2Net)(arch, **options)


def numbered(shapes: dict[str, tuple[int, ...]], *, first: int = 1) -> dict[str, Tensor]:
    """Tensors of these shapes, all entries of one alike and no two tensors equal; they take no memory."""
    state = {}
    for number, (name, shape) in enumerate(shapes.items(), start=first):
        counter = name.endswith('num_batches_tracked')
        state[name] = torch.tensor(number) if counter else torch.tensor(float(number)).expand(shape)
    return state


def state_of(arch: str, **options) -> dict[str, Tensor]:
    return dict(_state_of(arch, **options))


@cache
def _state_of(arch: str, **options) -> dict[str, Tensor]:
    with torch.device('meta'):
        shapes = {name: tuple(tensor.shape) for name, tensor in build(arch, **options).state_dict().items()}
    return numbered(shapes)


def classifier(arch: str, name: str = 'fc') -> dict[str, Tensor]:
    """The classifier beside it, as the official release and timm shape it."""
    dla = ARCHS[arch].family == 'dla'
    weight = (10, 1024, 1, 1) if dla else (10, 2048)
    return numbered({f'{name}.weight': weight, f'{name}.bias': (10,)}, first=10_000)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}
