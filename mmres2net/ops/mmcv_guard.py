"""mmcv's compiled operators and the memory format of tensors.

Several of mmcv's operators (RoIAlign, deformable convolutions and others) read and write tensors as if they were
contiguous, on CPUs and GPUs. Given channels_last features, they return wrong numbers without an error.
"""

import importlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

_GUARDED = '_mmres2net_guarded'


def guard_mmcv_operators() -> None:
    """Let every operator of ``mmcv._ext`` get contiguous tensors, in this process.

    Results change only where they were wrong. Nothing is done where mmcv has no operators; a second call has no effect.
    """
    try:
        extension = importlib.import_module('mmcv._ext')
    except ImportError:
        return
    for name, operator in list(vars(extension).items()):
        if callable(operator) and not name.startswith('_') and not hasattr(operator, _GUARDED):
            setattr(extension, name, _with_contiguous_tensors(operator))


def _with_contiguous_tensors(operator: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operator)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        strided = [isinstance(value, torch.Tensor) and value.layout is torch.strided for value in given]
        passed = [value.contiguous() if dense else value for value, dense in zip(given, strided, strict=True)]
        result = operator(*passed[: len(args)], **dict(zip(kwargs, passed[len(args) :], strict=True)))
        for before, after in zip(given, passed, strict=True):
            # Operators also take the tensors that they write to.
            if after is not before and not torch.allclose(before, after, rtol=0, atol=0, equal_nan=True):
                before.copy_(after)
        return result

    setattr(guarded, _GUARDED, True)
    return guarded
