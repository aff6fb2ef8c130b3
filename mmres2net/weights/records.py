"""What MMEngine's training checkpoints hold beside tensors: numpy numbers and arrays, and histories of logged values.

A pickle names the classes and functions that make its objects. torch's weights-only reader calls those it knows and
those it is told of; here are the ones it is told of. None is the real one: numpy's ``dtype`` takes flags that let plain
bytes be read as pointers, ``getattr`` reaches any attribute of anything, and MMEngine's ``HistoryBuffer`` takes over
functions from the file for all histories of the process. The stand-ins take plain values, check them, and are turned
into the real objects by :func:`settle` when the whole file is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

NUMBERS = re.compile(r'[biufc][0-9]{1,2}')


class _Dtype:
    """Stands for ``numpy.dtype``: numbers only, no objects, no fields, nothing with a pointer in it."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise UnpicklingError(f'an array of {code!r}, which are no numbers')
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
            raise UnpicklingError(f'a numpy type with the state {str(state)[:80]}')
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``: as many bytes as its shape and type say."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        count = math.prod(shape)
        if type(dtype) is not _Dtype or type(content) is not bytes or len(content) != count * dtype.value.itemsize:
            raise UnpicklingError('an array whose bytes do not fit its shape')
        self.value = np.frombuffer(content, dtype.value).reshape(shape, order='F' if fortran else 'C').copy()


class _History:
    """Stands for ``HistoryBuffer``: two arrays and a length; its statistics are MMEngine's, not the file's."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def settled(self) -> HistoryBuffer:
        """Return the real one."""
        log, count, length = (self.state.get(key) for key in ('_log_history', '_count_history', 'max_length'))
        if type(log) is not _Array or type(count) is not _Array or type(length) is not int:
            raise UnpicklingError('a history without its arrays')
        return HistoryBuffer(log.value, count.value, length)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """Stands for numpy's function of this name; what it makes is empty until its state comes."""
    if kind is not _Array:
        raise UnpicklingError(f'an array of the class {kind}')
    return _Array()


def _scalar(dtype: Any, content: Any) -> Any:
    if type(dtype) is not _Dtype or type(content) is not bytes or len(content) != dtype.value.itemsize:
        raise UnpicklingError('a numpy number whose bytes do not fit its type')
    return np.frombuffer(content, dtype.value)[0]


def _attribute(owner: Any, name: Any) -> str:
    """Stands for ``getattr``: the statistics of a history by name, which :class:`_History` then leaves to MMEngine."""
    if owner is not _History or not isinstance(name, str):
        raise UnpicklingError(f'getattr(..., {str(name)[:80]!r})')
    return name


# In the file to what is called. numpy 2 moved its functions; files name them as the numpy that wrote them did.
STAND_INS: dict[str, Callable[..., Any]] = {
    'builtins.getattr': _attribute,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray.scalar': _scalar,
}


def settle(content: Any) -> Any:
    """Return ``content`` with the real objects in the place of stand-ins; its dicts and lists are changed in place.

    Raises:
        UnpicklingError: A stand-in was left without what it needs.
    """
    return _Settler().settled(content)


class _Settler:
    """Looks at each object once: a small file may refer to the same lists a million times."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, Any]] = {}  # by id, with the object itself so that the id stays its own

    def settled(self, value: Any) -> Any:
        if not isinstance(value, dict | list | tuple | _Dtype | _Array | _History):
            return value
        if id(value) not in self.done:
            if isinstance(value, dict | list):
                self.done[id(value)] = value, value  # before its entries: it may hold itself
            self.done[id(value)] = value, self._settle(value)
        return self.done[id(value)][1]

    def _settle(self, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = self.settled(value[key])
        elif isinstance(value, list):
            value[:] = [self.settled(entry) for entry in value]
        elif type(value) is tuple:
            return tuple(self.settled(entry) for entry in value)
        elif isinstance(value, _History):
            return value.settled()
        elif isinstance(value, _Dtype | _Array):
            return value.value
        return value
