"""Arrays in pickles from outside, read as data: stand-ins for numpy's classes that take plain values and check them.

numpy's own are not safe to hand over: ``dtype`` takes flags that let plain bytes be read as pointers. A stand-in's
``value`` is the real array, type or number.
"""

import math
import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np

NUMBERS = re.compile(r'[biufc][0-9]{1,2}')


class StandIn:
    """An object of a pickle that is not yet the real one, which is its ``value``."""

    value: Any


class _Dtype(StandIn):
    """Stand-in for ``numpy.dtype``: numbers only, no objects, no fields, nothing with a pointer in it."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise UnpicklingError('an array of something other than numbers')
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
            raise UnpicklingError('a numpy type with a state that plain numbers do not have')
        self.value = self.value.newbyteorder(state[1])


class Array(StandIn):
    """Stand-in for ``numpy.ndarray``: as many bytes as its shape and type say."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, 'F' if fortran else 'C')

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> 'Array':
        """Take the ``content`` of a file after a check; return this array."""
        raw = content.encode('latin1') if isinstance(content, str) else content  # Python 2 has bytes as text
        if not isinstance(shape, tuple) or not all(type(length) is int for length in shape):
            raise UnpicklingError('an array whose shape is not a tuple of integers')
        known = type(dtype) is _Dtype and type(raw) in (bytes, bytearray)
        if not known or len(raw) != math.prod(shape) * dtype.value.itemsize:
            raise UnpicklingError(f'an array whose bytes do not fit its shape {shape[:4]}')
        self.value = np.frombuffer(raw, dtype.value).reshape(shape, order='F' if order == 'F' else 'C').copy()
        return self


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """Stand-in for numpy's function of this name; what it makes is empty until its state comes."""
    if kind is not Array:
        raise UnpicklingError('an array of another class')
    return Array()


def _scalar(dtype: Any, content: Any) -> Any:
    if type(dtype) is not _Dtype or type(content) is not bytes or len(content) != dtype.value.itemsize:
        raise UnpicklingError('a numpy number whose bytes do not fit its type')
    return np.frombuffer(content, dtype.value)[0]


# By their names in a file. numpy 2 moved its functions; files name them as the numpy that wrote them did. Pickles of
# protocol 5 call the last one.
STAND_INS: dict[str, Callable[..., Any]] = {'numpy.dtype': _Dtype, 'numpy.ndarray': Array}
for _core in ('core', '_core'):
    STAND_INS[f'numpy.{_core}.multiarray._reconstruct'] = _reconstruct
    STAND_INS[f'numpy.{_core}.multiarray.scalar'] = _scalar
    STAND_INS[f'numpy.{_core}.numeric._frombuffer'] = lambda *arguments: Array().fill(*arguments)
