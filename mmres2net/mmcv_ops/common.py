"""What the operators share: the precision that they compute in, and the error for what is not provided."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor, nn

from mmres2net.errors import UserError

VERSIONS: dict[str, Callable[[], str]] = {
    'get_compiler_version': lambda: f'none: operators of torchvision {torchvision.__version__}',
    'get_compiling_cuda_version': lambda: 'not available',
}


def computable(tensor: Tensor) -> Tensor:
    """Return the tensor in double precision if it has it, else in single precision: half of it is for storage."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def missing_operator(name: str) -> Callable[..., Any]:
    """Return a function whose call is the error: ``mmcv.ops`` looks all its operators up when it is imported."""
    if name.startswith('__'):
        raise AttributeError(name)
    return partial(refuse, name)


def refuse(operator: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raise a UserError that names the operator and the part of the model that calls it."""
    raise UserError(
        f"{_calling_module()} needs mmcv's operator {operator}, which exists only in an mmcv with compiled operators. "
        'Compile them with `make setup OPS=1` (see docs/install.md), or use a model without this operator'
    )


def _calling_module() -> str:
    """Return the class of the model part whose code is running: the innermost module from outside of mmcv.ops."""
    frame = sys._getframe(2)
    while frame is not None:
        part = frame.f_locals.get('self')
        if isinstance(part, nn.Module) and not type(part).__module__.startswith(('mmcv.ops', 'torch.')):
            return f'{type(part).__name__} ({type(part).__module__})'
        frame = frame.f_back  # type: ignore[assignment]
    return 'this program'
