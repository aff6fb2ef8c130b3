"""All operators of the replacement for ``mmcv._ext``, and the error for those that it does not have.

Every function has the name and the arguments that ``mmcv.ops`` uses, and writes into the tensors that it is handed.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torchvision

from mmres2net.mmcv_ops import convolution, dense, pooling, suppression
from mmres2net.mmcv_ops.common import refuse

OPERATORS: dict[str, Callable[..., Any]] = {
    name: value
    for module in (convolution, dense, pooling, suppression)
    for name, value in vars(module).items()
    if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith('_')
} | {
    'get_compiler_version': lambda: f'none: operators of torchvision {torchvision.__version__}',
    'get_compiling_cuda_version': lambda: 'not available',
}


def missing_operator(name: str) -> Callable[..., Any]:
    """Return a function in place of an operator that is not in :data:`OPERATORS`.

    ``mmcv.ops`` looks all its operators up when it is imported, so the error has to wait for the call.
    """
    if name.startswith('__'):
        raise AttributeError(name)
    return partial(refuse, name)
