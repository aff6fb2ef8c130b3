"""The pickles in checkpoints: what they name, what they expand to, and MMEngine's records of a run.

torch's reader with ``weights_only=True`` makes only objects that it knows, and those that it is told of. MMEngine's
checkpoints also hold numpy values and histories of logged values. None of the real classes is safe to hand over:
``numpy.dtype`` takes flags that let plain bytes be read as pointers, ``getattr`` reaches any attribute of anything, and
``HistoryBuffer`` takes functions from the file for all histories of the process. So torch is told of stand-ins, which
take plain values, check them, and are replaced by the real objects when the file is read (:func:`resolve`).
"""

import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, ClassVar

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import Tensor

LEGACY_PICKLES = 5  # torch before 1.6: a magic number, a version, the machine, the content, the keys of the tensors
MAX_DEPTH = 100
MAX_KEY = 100  # values in a tuple that is a key
SLACK = 2**28  # bytes that the content of any file may expand to, however small the file is
LEAF = 64  # bytes that a value counts, besides the length of a text or an array
# torch's reader makes these, and each of them makes gigabytes of a few bytes.
EXPANDING = ('bytearray', '_rebuild_sparse_tensor', '_rebuild_nested_tensor', '_rebuild_meta_tensor_no_storage')
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
        raw = content.encode('latin1') if isinstance(content, str) else content  # Python 2 has bytes as text
        if not isinstance(shape, tuple) or not all(type(length) is int for length in shape):
            raise UnpicklingError('an array whose shape is not a tuple of integers')
        known = type(dtype) is _Dtype and type(raw) is bytes
        if not known or len(raw) != math.prod(shape) * dtype.value.itemsize:
            raise UnpicklingError(f'an array whose bytes do not fit its shape {shape[:4]}')
        self.value = np.frombuffer(raw, dtype.value).reshape(shape, order='F' if fortran else 'C').copy()


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """Stand-in for numpy's function of this name; what it makes is empty until its state comes."""
    if kind is not Array:
        raise UnpicklingError('an array of another class')
    return Array()


def _scalar(dtype: Any, content: Any) -> Any:
    if type(dtype) is not _Dtype or type(content) is not bytes or len(content) != dtype.value.itemsize:
        raise UnpicklingError('a numpy number whose bytes do not fit its type')
    return np.frombuffer(content, dtype.value)[0]


class _History(StandIn):
    """Stand-in for ``HistoryBuffer``: two arrays and a length; its statistics are MMEngine's, not the file's."""

    def __setstate__(self, state: Any) -> None:
        log, count, length = (state.get(key) for key in ('_log_history', '_count_history', 'max_length'))
        if type(log) is not Array or type(count) is not Array or type(length) is not int:
            raise UnpicklingError('a history without its arrays')
        self.value = HistoryBuffer(log.value, count.value, length)


def _attribute(owner: Any, name: Any) -> str:
    """Stand-in for ``getattr``: the statistics of a history by name, which are left to MMEngine."""
    if owner is not _History or not isinstance(name, str):
        raise UnpicklingError('getattr of something other than a history')
    return name


# By their names in the file. numpy 2 moved its functions; files name them as the numpy that wrote them did.
STAND_INS: dict[str, Callable[..., Any]] = {
    'numpy.dtype': _Dtype,
    'numpy.ndarray': Array,
    **{f'numpy.{core}.multiarray._reconstruct': _reconstruct for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
    'builtins.getattr': _attribute,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
}


def resolve(content: Any, file_size: int) -> Any:
    """Return ``content`` with the real objects instead of stand-ins; its dicts and lists are changed in place.

    An UnpicklingError says that a tensor has no data, that the content is nested too deep, or that it expands to more
    than files of its size can hold: a small file can refer to the same list a million times, or to one number as a
    tensor of terabytes. So each object is visited once, and its size counted at each reference.
    """
    limit = 4 * file_size + SLACK
    done: dict[int, tuple[Any, Any, int]] = {}  # by id: the object itself, so that its id stays its own

    def visit(value: Any, depth: int) -> tuple[Any, int]:
        value = value.value if isinstance(value, StandIn) else value
        if isinstance(value, Tensor):
            if value.is_meta:
                raise UnpicklingError('a tensor without data')
            return value, value.numel() * value.element_size()
        if not isinstance(value, dict | list | tuple | set):
            size = len(value) if isinstance(value, str | bytes) else 0
            return value, LEAF + (value.nbytes if isinstance(value, np.ndarray) else size)
        if depth > MAX_DEPTH:
            raise UnpicklingError(f'it is nested more than {MAX_DEPTH} levels deep')
        if id(value) in done:
            return done[id(value)][1:]
        done[id(value)] = value, value, limit + 1  # what holds itself expands without end
        entries = [visit(entry, depth + 1) for entry in (value.values() if isinstance(value, dict) else value)]
        new, size = [entry for entry, _ in entries], LEAF + sum(more for _, more in entries)
        if isinstance(value, dict):
            dict.update(value, zip(value, new, strict=True))  # Counter.update(), of milestones, would count
            size += sum(visit(key, depth + 1)[1] for key in value)
        elif isinstance(value, list):
            value[:] = new
        done[id(value)] = value, tuple(new) if type(value) is tuple else value, size
        return done[id(value)][1:]

    found, size = visit(content, 0)
    if size > limit:
        raise UnpicklingError(f'it expands to more than {limit:,} bytes, which no checkpoint of its size does')
    return found


def is_zip(head: bytes) -> bool:
    """Whether a file with these first bytes is read as a zip by torch."""
    return head[:2] == b'PK'


def check_pickles(path: Path, names: dict[str, None]) -> None:
    """Add what a checkpoint's pickles name to ``names``; an UnpicklingError for damage, or what fills the memory."""
    try:
        with path.open('rb') as stream:
            if not is_zip(stream.read(2)):
                stream.seek(0)
                for _ in range(LEGACY_PICKLES):
                    _Inspection(stream, names).load()
                return
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.filename.rpartition('/')[2] == 'data.pkl':
                    with archive.open(part) as entry:
                        _Inspection(entry, names).load()
    except UnpicklingError:
        raise
    except Exception as error:  # damage ends an unpickler at any place, in any way
        raise UnpicklingError(f'its pickle is damaged ({type(error).__name__})') from error


def check_key(key: Any) -> None:
    """Raise an UnpicklingError for a key that is slow to hash: of nested tuples each use hashes all that they hold."""
    if isinstance(key, tuple) and (len(key) > MAX_KEY or any(isinstance(part, tuple) for part in key)):
        raise UnpicklingError('a key of nested tuples')


class _Named:
    """Stands for a class or function that a pickle names, and for what it makes, while the pickle is inspected."""

    def __new__(cls, *arguments: Any, **_: Any) -> '_Named':
        if cls.__name__ == 'encode' and arguments[1:] not in (('latin1',), ('latin-1',)):
            raise UnpicklingError('bytes in an encoding that can expand to any size')
        hashes = cls.__name__ in ('set', 'Counter', 'OrderedDict') and isinstance(
            next(iter(arguments), None), list | tuple
        )
        for key in arguments[0] if hashes else ():
            check_key(key[0] if isinstance(key, list) and key else key)  # Python 2 has lists of a key and a value
        return super().__new__(cls)

    def __setitem__(self, *_: Any) -> None:
        pass

    __setstate__ = append = extend = __setitem__


_PythonUnpickler: Any = pickle._Unpickler


class _Inspection(_PythonUnpickler):
    """An unpickler that imports and calls nothing, written in Python, so that its steps can be replaced."""

    def __init__(self, stream: IO[bytes], names: dict[str, None]) -> None:
        super().__init__(stream, encoding='latin1')
        self.names = names

    def find_class(self, module: str, name: str) -> type:
        self.names[f'{module}.{name}'.replace('__builtin__.', 'builtins.')] = None
        if name in EXPANDING:
            raise UnpicklingError(f'{module}.{name}, which can expand to any size')
        return type(name, (_Named,), {})

    def persistent_load(self, pid: Any) -> None:  # the numbers of a tensor
        check_key(pid)

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            check_key(key)
        super().load_setitems()

    def load_setitem(self) -> None:
        check_key(self.stack[-2])
        super().load_setitem()

    dispatch: ClassVar[dict[int, Any]] = {
        **_PythonUnpickler.dispatch,
        **{pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems},
        # They would hash before the keys can be checked; torch reads none of them.
        **dict.fromkeys((pickle.ADDITEMS[0], pickle.FROZENSET[0], pickle.DICT[0])),
    }
