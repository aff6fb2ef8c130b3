"""All operators of the replacement for ``mmcv._ext``, and the error for those that it does not have.

Every function has the name and the arguments that ``mmcv.ops`` uses, and writes into the tensors that it is handed.
"""

import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torchvision
from torch import nn

from mmres2net.errors import UserError
from mmres2net.mmcv_ops import convolution, dense, pooling, suppression


def get_compiler_version() -> str:
    """Say where the operators come from, in place of a compiler's version."""
    return f'none: operators of torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """Return mmcv's answer for operators that were compiled without CUDA."""
    return 'not available'


OPERATORS: dict[str, Callable[..., Any]] = {
    name: value
    for module in (convolution, dense, pooling, suppression)
    for name, value in vars(module).items()
    if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith('_')
} | {'get_compiler_version': get_compiler_version, 'get_compiling_cuda_version': get_compiling_cuda_version}


def missing_operator(name: str) -> Callable[..., Any]:
    """Return a function in place of an operator that is not in :data:`OPERATORS`.

    ``mmcv.ops`` looks all its operators up when it is imported, so the error has to wait for the call.
    """
    if name.startswith('__'):
        raise AttributeError(name)
    return partial(_refuse, name)


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    raise UserError(
        f"{_calling_module()} needs mmcv's operator {name}, which exists only in an mmcv with compiled operators. "
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
