"""Checkpoint files are data: read without running anything that they ask for, or refused with what is wrong with them.

torch's own reader is told to take weights only. Before it, what a hostile or broken file could do to the reader itself
is looked at here: how the file begins, whether a zip's parts are stored as they are and fit in it, their checksums, and
whether the file is one of the two old forms that older versions of torch read by running them.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from mmres2net.errors import UserError
from mmres2net.weights.records import STAND_INS, settle

FLAG = '--allow-unsafe-checkpoint'
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
PICKLES = 5  # of torch's form before 1.6: a magic number, a version, the machine, the content, the tensors' keys
LISTED = 5


def read_checkpoint(path: str | Path, *, allow_pickle: bool = False, map_location: Any = 'cpu') -> dict[str, Any]:
    """Return the content of a checkpoint; nothing of the file is run.

    Reads torch's zip files, its form before version 1.6, and safetensors (a flat dict of tensors). Beside tensors and
    plain Python values, MMEngine's records of a run are understood, so that one's own runs can be resumed.

    Args:
        path: The file.
        allow_pickle: Read also what needs code of the file to be run. For files whose maker is known and trusted.
        map_location: Where tensors go, as in ``torch.load``.

    Raises:
        UserError: No such file, or none that can be read; the message says what it is instead.
    """
    path = Path(os.path.expanduser(path))
    check_file(path)
    try:
        content = _read(path, allow_pickle, map_location)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except UserError:
        raise
    except Exception as error:  # a broken file ends the reader at any place, in any way
        raise UserError(f'{path} is not a whole checkpoint: {_words(error)}. {AGAIN}') from error
    if not isinstance(content, dict) or not content:
        raise UserError(
            f'{path} holds {_described(content)}; a checkpoint is a dict of tensors, or has one under state_dict. '
            'Of a whole module, save module.state_dict()'
        )
    return content


AGAIN = 'Delete it and fetch or write it again, or name another one'


def check_file(path: Path) -> None:
    """Look at a file's form without reading its content as objects: begin, size, and a zip's parts and checksums.

    Raises:
        UserError: It is no checkpoint, is cut short or damaged, or is larger inside than outside.
    """
    if not path.is_file():
        raise UserError(f'no checkpoint at {path}')
    try:
        size = path.stat().st_size
        with path.open('rb') as stream:
            head = stream.read(512)
        fault = _fault_of_form(path, head, size)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error
    if fault:
        raise UserError(f'{path} is not a whole checkpoint: {fault}. {AGAIN}')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if size > memory:
        raise UserError(f'{path} has {size:,} bytes, this machine {memory:,} bytes of memory: it cannot be read')


def _fault_of_form(path: Path, head: bytes, size: int) -> str:
    if not size:
        return 'it is empty'
    if _is_safetensors(head, size):
        return ''
    if path.suffix == '.safetensors':
        return f'its name says safetensors, its content does not{_likeness(head)}'
    if head[:2] == b'PK':
        return _fault_of_zip(path, size)
    if head[257:262] == b'ustar':
        return "it is a tar file, torch's form before 0.1.10 or an archive of something else"
    return '' if head[:1] == b'\x80' else f'it begins with {head[:16]!r}{_likeness(head)}'


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b'{' and 2 <= int.from_bytes(head[:8], 'little') <= size - 8


def _likeness(head: bytes) -> str:
    """Return what a file that is no checkpoint looks like."""
    start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return ': a web page saved by that name, so the download failed'
    if start.startswith(b'version https://git-lfs'):
        return ": a pointer of Git LFS, in the place of the file; 'git lfs pull' brings it"
    if start.startswith((b'{', b'[')):
        return ': JSON, perhaps the answer of a server that refused'
    if head.startswith((b'\x1f\x8b', b'7z\xbc\xaf', b'Rar!', b'\xfd7zXZ', b'BZh')):
        return ': a compressed archive, which has to be unpacked first'
    return ': a text' if start and all(byte < 127 and (byte > 31 or byte in b'\t\r\n') for byte in head) else ''


def _fault_of_zip(path: Path, size: int) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            names = [part.filename.rpartition('/')[2] for part in parts]
            if 'constants.pkl' in names:
                return 'it is a TorchScript program; a checkpoint holds tensors and no program'
            if 'data.pkl' not in names:
                return 'it is a zip file without data.pkl, and so not of torch'
            # torch stores tensors as they are. What is packed could be a thousand times as large as the file.
            packed = next((part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED), '')
            if packed:
                return f'its part {packed!r} is compressed, which torch never does (a zip bomb looks like this)'
            if sum(part.file_size for part in parts) > size:
                return 'its parts are larger than itself (a zip bomb looks like this)'
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f'{error}, so it is cut short or damaged'
    return f'its part {broken} is damaged' if broken else ''


def _read(path: Path, allow_pickle: bool, map_location: Any) -> Any:
    with path.open('rb') as stream:
        head = stream.read(16)
    if _is_safetensors(head, path.stat().st_size):
        return _read_safetensors(path, map_location)
    try:
        # Given with the names under which files know them: those are not the stand-ins' own.
        with torch.serialization.safe_globals([(item, name) for name, item in STAND_INS.items()]):
            return settle(torch.load(path, map_location=map_location, weights_only=True))
    except pickle.UnpicklingError:
        if not allow_pickle:
            raise
    return torch.load(path, map_location=map_location, weights_only=False)


def _read_safetensors(path: Path, map_location: Any) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path} needs the package that reads it: pip install 'safetensors>=0.4'") from error
    try:
        return load_file(path, device=str(map_location) if map_location is not None else 'cpu')
    except SafetensorError as error:
        raise UserError(f'{path} is not a whole checkpoint: {error}. {AGAIN}') from error


def _refused(path: Path, error: pickle.UnpicklingError) -> UserError:
    """Return the error for a file that torch's reader did not take."""
    names = [name for name in code_of(path) if not _is_known(name)]
    if not names:
        return UserError(f'{path} is no checkpoint that can be read safely: {_words(error)}. {AGAIN}')
    listed = ', '.join([*names[:LISTED], *([f'and {len(names) - LISTED} more'] if len(names) > LISTED else [])])
    return UserError(
        f'{path} is refused: it is no plain checkpoint, reading it would run code that it names: {listed}. '
        'Nothing of it was run.\n'
        '  - take the weights in safetensors form, or as a plain state_dict, from where they are published\n'
        f'  - or, only if you know and trust who made this file, give {FLAG}: it reads the file and RUNS ITS CODE'
    )


def _is_known(name: str) -> bool:
    if name in STAND_INS or name.replace('__builtin__.', 'builtins.') in STAND_INS:
        return True
    harmless = ('collections.OrderedDict', 'collections.Counter', '_codecs.encode', 'torch.Size', 'torch.device')
    return name in harmless or (name.startswith('torch.') and name.endswith('Storage')) or name in _rebuilders()


def _rebuilders() -> set[str]:
    names = ('_tensor', '_tensor_v2', '_tensor_v3', '_parameter', '_parameter_with_state')
    return {'torch.nn.parameter.Parameter', 'torch.Tensor', *(f'torch._utils._rebuild{name}' for name in names)}


def code_of(path: Path) -> list[str]:
    """Return the classes and functions that a checkpoint's pickle names, each once; none of them is looked up.

    Of a pickle that is cut short, those before the cut.
    """
    found: dict[str, None] = {}
    # A pickle may be nonsense at any place: what was named up to there is what there is to tell.
    with suppress(ValueError, EOFError, KeyError, IndexError, OSError, zipfile.BadZipFile, UnicodeDecodeError):
        for name in _named(path):
            found[name] = None
    return list(found)


def _named(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        with path.open('rb') as stream:
            for _ in range(PICKLES):
                yield from _names_in(stream)
        return
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.rpartition('/')[2] == 'data.pkl')
        with archive.open(name) as stream:
            yield from _names_in(stream)


def _names_in(stream: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in ('GLOBAL', 'INST'):
            yield '.'.join(str(argument).split(' ', 1))
        elif operation.name == 'STACK_GLOBAL':
            yield '.'.join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)


def _described(content: Any) -> str:
    kind = type(content)
    return 'nothing' if isinstance(content, dict) else f'an object of {kind.__module__}.{kind.__name__}'


def _words(error: BaseException) -> str:
    """Return the first line of an error, with its kind where that says more."""
    text = (str(error).strip().splitlines() or [''])[0].rstrip('.')[:200]
    return (
        text if isinstance(error, pickle.UnpicklingError | RuntimeError) and text else f'{type(error).__name__} {text}'
    )
