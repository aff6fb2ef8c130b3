"""The pickles in checkpoints: what they name, what they expand to, and MMEngine's records of a run.

torch's reader with ``weights_only=True`` makes only objects that it knows, and those that it is told of. MMEngine's
checkpoints also hold numpy values and histories of logged values. None of the real classes is safe to hand over: those
of numpy (see `numpy_pickles.py`), ``getattr``, which reaches any attribute of anything, and ``HistoryBuffer``, which
takes functions from the file for all histories of the process. So torch is told of stand-ins, which take plain values,
check them, and are replaced by the real objects when the file is read (:func:`resolve`).
"""

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from mmengine.logging import HistoryBuffer
from torch import Tensor

from mmres2net.numpy_pickles import STAND_INS as ARRAYS
from mmres2net.numpy_pickles import Array, StandIn

LEGACY_PICKLES = 5  # torch before 1.6: a magic number, a version, the machine, the content, the keys of the tensors
MAX_DEPTH = 100
MAX_HASHED = 10**7  # values in all keys: a tuple is hashed with all that it holds, again at each use
SLACK = 2**28  # bytes that the content of any file may expand to, however small the file is
LEAF = 64  # bytes that a value counts, besides the length of a text or an array
# torch's reader makes these, and each of them makes gigabytes of a few bytes.
EXPANDING = ('bytearray', '_rebuild_sparse_tensor', '_rebuild_nested_tensor', '_rebuild_meta_tensor_no_storage')
HARMLESS = (
    *('collections.OrderedDict', 'collections.Counter', '_codecs.encode', 'torch.Size', 'torch.device'),
    *('torch.nn.parameter.Parameter', 'torch.Tensor'),
)


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


STAND_INS: dict[str, Callable[..., Any]] = {  # by their names in the file
    **ARRAYS,
    'builtins.getattr': _attribute,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
}


def resolve(content: Any, file_size: int, *, meta: bool = False) -> Any:
    """Return ``content`` with the real objects instead of stand-ins; its dicts and lists are changed in place.

    Tensors without data are refused unless ``meta`` wants them. An UnpicklingError says that the content is nested too
    deep, or expands to more than files of its size can hold: a small file can refer to the same list a million times,
    or to one number as a tensor of terabytes. So each object is visited once, and its size counted at each reference.
    """
    limit = 4 * file_size + SLACK
    done: dict[int, tuple[Any, Any, int]] = {}  # by id: the object itself, so that its id stays its own

    def visit(value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Tensor):
            if value.is_meta and not meta:
                raise UnpicklingError('a tensor without data')
            return value, value.numel() * value.element_size()
        if isinstance(value, StandIn):
            return value.value, getattr(value.value, 'nbytes', LEAF)
        if not isinstance(value, dict | list | tuple | set):
            return value, LEAF + (len(value) if isinstance(value, str | bytes) else 0)
        if depth > MAX_DEPTH:
            raise UnpicklingError(f'it is nested more than {MAX_DEPTH} levels deep')
        if id(value) not in done:
            done[id(value)] = value, value, limit + 1  # what holds itself expands without end
            done[id(value)] = value, *children(value, depth + 1)
        return done[id(value)][1:]

    def children(value: Any, depth: int) -> tuple[Any, int]:
        entries = [visit(entry, depth) for entry in (value.values() if isinstance(value, dict) else value)]
        found, size = [entry for entry, _ in entries], LEAF + sum(more for _, more in entries)
        if isinstance(value, dict):
            value.update(zip(value, found, strict=True))
            size += sum(visit(key, depth)[1] for key in value)
        elif isinstance(value, list):
            value[:] = found
        return (tuple(found) if type(value) is tuple else value), size

    value, size = visit(content, 0)
    if size > limit:
        raise UnpicklingError(f'it expands to more than {limit:,} bytes, which no checkpoint of its size does')
    return value


def code_of(path: Path) -> list[str]:
    """Return the classes and functions that a checkpoint names beside those of plain checkpoints, each once."""
    names: dict[str, None] = {}
    with suppress(UnpicklingError):  # of a damaged pickle, those before the damage
        for name in _globals_of(path):
            names[name] = None
    return [name for name in names if not _is_plain(name)]


def check_globals(path: Path) -> None:
    """Raise an UnpicklingError for a pickle that is damaged, or would keep torch's reader busy or fill the memory."""
    for name in _globals_of(path):
        if name.rpartition('.')[2] in EXPANDING:
            raise UnpicklingError(f'{name}, which can expand to any size')


def is_zip(head: bytes) -> bool:
    """Whether a file with these first bytes is read as a zip by torch."""
    return head[:2] == b'PK'


def _is_plain(name: str) -> bool:
    storage = name.startswith('torch.') and name.endswith('Storage')
    known = name.replace('__builtin__.', 'builtins.') in {*HARMLESS, *STAND_INS}
    return storage or known or name.startswith('torch._utils._rebuild')


def _globals_of(path: Path) -> Iterator[str]:
    """Yield the classes and functions that a checkpoint's pickles name; none of them is looked up."""
    with path.open('rb') as stream:
        if not is_zip(stream.read(2)):
            stream.seek(0)
            for _ in range(LEGACY_PICKLES):
                yield from _follow(stream)
            return
    with zipfile.ZipFile(path) as archive:
        for name in (name for name in archive.namelist() if name.rpartition('/')[2] == 'data.pkl'):
            with archive.open(name) as part:
                yield from _follow(part)


@dataclass
class _Value:
    """A value on a pickle's stack."""

    text: str = ''  # if it is one
    leaves: int = 1  # how many values it holds, each counted at each reference


def _follow(stream: IO[bytes]) -> Iterator[str]:
    """Yield the names in a pickle while following its stack."""
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[Any, _Value] = {}
    hashed = 0
    try:
        for operation, argument, _ in pickletools.genops(stream):
            kind, before = operation.name, operation.stack_before
            if kind == 'MARK':
                marks.append(len(stack))
            elif kind in ('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
                memo[len(memo) if kind == 'MEMOIZE' else argument] = stack[-1]
            elif kind in ('GET', 'BINGET', 'LONG_BINGET'):
                stack.append(memo[argument])
            else:
                marked = pickletools.markobject in before
                count = before.index(pickletools.markobject) if marked else len(before)
                place = max((marks.pop() if marked else len(stack)) - count, 0)
                popped = stack[place:]
                del stack[place:]
                stack += _pushed(operation, argument, popped)
                if kind in ('GLOBAL', 'INST', 'STACK_GLOBAL'):
                    yield stack[-1].text
                # Keys, and arguments of a call, may be hashed with all that they hold.
                keys = popped[1::2] if 'SETITEM' in kind else popped[1:] if kind in ('REDUCE', 'NEWOBJ') else ()
                hashed += sum(value.leaves for value in keys)
                if hashed > MAX_HASHED:
                    raise UnpicklingError(f'keys that hold more than {MAX_HASHED:,} values')
    except (ValueError, EOFError, KeyError, IndexError, OSError, zipfile.BadZipFile) as error:
        raise UnpicklingError(f'its pickle is damaged ({type(error).__name__})') from error


def _pushed(operation: Any, argument: Any, popped: list[_Value]) -> list[_Value]:
    """Return what an operation puts on the stack instead of what it took."""
    kind = operation.name
    if kind in ('GLOBAL', 'INST'):
        return [_Value('.'.join(str(argument).split(' ', 1)))]
    if kind == 'STACK_GLOBAL':
        return [_Value(f'{popped[0].text}.{popped[1].text}')]
    if 'TUPLE' in kind:
        return [_Value(popped[-1].text if popped else '', 1 + sum(value.leaves for value in popped))]
    if kind in ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS'):  # the same object, which the memo may refer to
        popped[0].leaves += sum(value.leaves for value in popped[1:])
        return popped[:1]
    if kind == 'REDUCE' and popped[0].text == '_codecs.encode' and popped[1].text not in ('latin1', 'latin-1'):
        raise UnpicklingError('bytes in an encoding that can expand to any size')
    return [_Value(argument if isinstance(argument, str) else '') for _ in operation.stack_after]
