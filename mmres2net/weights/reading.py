"""Read a checkpoint as data: nothing in it is run, and one that is broken or hostile is one clear error.

torch reads the file with ``weights_only=True``. What could harm that reader or its caller is checked around it: the
form of the file and the checksums of its parts before, the size of what it expands to after. Entries that MMEngine's
resume would run or delete are removed (:func:`remove_commands`).
"""

import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmres2net.errors import UserError, reason_of
from mmres2net.text import join_some
from mmres2net.weights.pickles import STAND_INS, check_globals, code_of, is_zip, resolve

FLAG = '--allow-unsafe-checkpoint'
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
MAX_CLASSES, MAX_NAME = 100_000, 1_000  # more are not class names but an attack
RETRY = 'Delete it and download or write it again, or name another file'
# In order of preference. An average of weights comes before the weights, as timm reads its own checkpoints. MMEngine
# needs no such rule: with its EMA hook `state_dict` is the average, and `ema_state_dict` is what training resumes from.
WEIGHT_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and of torch.compile
# What a file that is no checkpoint may be instead, by its first bytes in lower case
LIKENESS: dict[str, bytes | tuple[bytes, ...]] = {
    'a web page saved under this name, so the download failed': (b'<!doctype', b'<html', b'<?xml', b'<head'),
    "a pointer of Git LFS instead of the file; run 'git lfs pull'": b'version https://git-lfs',
    'JSON, perhaps the error message of a server': (b'{', b'['),
    'a compressed archive; unpack it first': (b'\x1f\x8b', b'7z\xbc\xaf', b'rar!', b'\xfd7zxz', b'bzh'),
}


def read_checkpoint(
    path: str | Path, *, allow_pickle: bool = False, map_location: Any = 'cpu', work_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return the content of a checkpoint; nothing in the file is run.

    Reads torch's zip files, torch's form before version 1.6, and safetensors (a flat dict of tensors). Besides tensors
    and plain Python values, MMEngine's records of a run are read, so that a run can be resumed.

    Args:
        path: The file. A UserError says that there is none, or why it cannot be read safely.
        allow_pickle: Also read a file that needs its code to be run. Only for files from a trusted source.
        map_location: Device of the tensors, as in ``torch.load``.
        work_dir: Work dir of a run that resumes from the file, whose own best checkpoint it may replace.
    """
    path = Path(os.path.expanduser(path))
    check_file(path)
    try:
        content = _read(path, allow_pickle, map_location)
    except Exception as error:  # a broken file ends the reader at any place, in any way
        refused = isinstance(error, pickle.UnpicklingError)
        names = code_of(path) if refused else []
        if names:
            raise UserError(
                f'{path} is refused: reading it would run code that it names: {join_some(names)}. Nothing was run.\n'
                '  - use the weights in safetensors form, or as a plain state_dict, from where they are published\n'
                f'  - or, only if you know and trust the source of this file, give {FLAG}: it RUNS THE CODE in the file'
            ) from error
        what = 'cannot be read safely' if refused else 'is not a complete checkpoint'
        raise UserError(f'{path} {what}: {reason_of(error)[:200].rstrip(".")}. {RETRY}') from error
    if not isinstance(content, dict) or not content:
        kind = f'an object of {type(content).__module__}.{type(content).__name__}'
        text = f'{path} holds {"nothing" if isinstance(content, dict) else kind}; a checkpoint is a dict of tensors'
        raise UserError(f'{text}, or has one under state_dict. Of a module, save module.state_dict()')
    remove_commands(content, work_dir)
    return content


def remove_commands(content: dict[str, Any], work_dir: str | Path | None = None) -> None:
    """Remove from ``content``, in place, the entries that MMEngine would execute or delete on resume.

    ``meta.config`` is run as a Python file. ``best_ckpt`` and similar entries of the message hub name files and folders
    that are deleted when a better checkpoint is saved; one is kept only if it is a best checkpoint in ``work_dir``,
    which may have been moved since.
    """
    meta, hub = content.get('meta'), content.get('message_hub')
    if isinstance(meta, dict):
        meta.pop('config', None)
    if not isinstance(hub, dict):
        return
    infos = [info for info in (hub.get('runtime_info'), hub.get('resumed_keys')) if isinstance(info, dict)]
    for info in infos:
        for key, value in info.items():
            if work_dir and str(key).startswith('best_ckpt') and isinstance(value, str) and '\0' not in value:
                moved = os.path.join(os.path.abspath(work_dir), os.path.basename(value))
                info[key] = moved if os.path.isfile(moved) else value
    for key in [key for info in infos for key, value in info.items() if _names_foreign_file(key, value, work_dir)]:
        for info in infos:
            info.pop(key, None)


def _names_foreign_file(key: Any, value: Any, work_dir: str | Path | None) -> bool:
    if key == 'keep_ckpt_ids':  # become part of file names
        return not (isinstance(value, bool) or (isinstance(value, list) and all(type(entry) is int for entry in value)))
    if not isinstance(value, str | bytes):
        return 'ckpt' in str(key) and value is not None and not isinstance(value, bool)
    text = os.fsdecode(value)
    if 'ckpt' not in str(key) and ('\n' in text or not (os.sep in text or os.path.lexists(text[:4096]))):
        return False
    with suppress(OSError, ValueError):  # no name of a file at all
        path = Path(os.path.realpath(text))
        own = work_dir is not None and path.parent == Path(os.path.realpath(work_dir))
        return not (own and path.name.startswith('best_'))
    return True


def weights_key(content: Mapping[str, Any], key: str | None = None) -> str:
    """Return ``key``, or the first of :data:`WEIGHT_KEYS` that holds weights; '' if ``content`` itself holds them."""
    holders = [name for name, value in content.items() if isinstance(value, Mapping) and _tensors(value)]
    if key is not None and key not in holders:
        what = f'no weights under the key {key!r}'
        raise UserError(f'{what}; this file has weights under: {", ".join(map(str, holders)) or "none"}')
    return key if key is not None else next((name for name in WEIGHT_KEYS if name in holders), '')


def unwrap(content: Mapping[str, Any], *, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights in ``content`` by name, without the prefixes of wrappers such as ``module.``.

    ``content`` holds weights by name, or a dict of them under ``key``; None: the first of :data:`WEIGHT_KEYS` there. A
    UserError says that there are no weights, or two whose names differ only in a wrapper.
    """
    entry = weights_key(content, key)
    tensors = _tensors(content[entry] if entry else content)
    if not tensors:
        there = join_some([repr(name) for name in content]) or 'nothing'
        raise UserError(
            f'no weights found by name or under {", ".join(WEIGHT_KEYS)}: the file holds {there}; name a key'
        )
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name
        while bare.startswith(WRAPPERS):
            bare = bare.partition('.')[2]
        if bare in state:
            raise UserError(f'the file holds {bare!r} twice, also as {name!r}: remove one of them')
        state[bare] = tensor
    return state


def _tensors(holder: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in holder.items() if isinstance(name, str) and isinstance(value, Tensor)}


def check_file(path: Path) -> None:
    """Check a file's form before its content is read: its first bytes, its size, a zip's parts and checksums."""
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
        raise UserError(f'{path} is not a complete checkpoint: {fault}. {RETRY}')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if size > memory:
        raise UserError(f'{path} has {size:,} bytes, and this machine has {memory:,} bytes of memory')


def _fault_of_form(path: Path, head: bytes, size: int) -> str:
    if not size:
        return 'it is empty'
    if _is_safetensors(head, size):
        return ''
    start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    likeness = next((f': {text}' for text, starts in LIKENESS.items() if start.startswith(starts)), '')
    if not likeness and start and all(byte < 127 and (byte > 31 or byte in b'\t\r\n') for byte in head):
        likeness = ': a text'
    if path.suffix == '.safetensors':
        return f'its name says safetensors, its content does not{likeness}'
    if is_zip(head):
        return _fault_of_zip(path, size)
    if head[257:262] == b'ustar':
        return "it is a tar file, torch's form before 0.1.10 or an archive of something else"
    return '' if head[:1] == b'\x80' else f'it begins with {head[:16]!r}{likeness}'


def _fault_of_zip(path: Path, size: int) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            names = [part.filename.rpartition('/')[2] for part in parts]
            if 'constants.pkl' in names:
                return 'it is a TorchScript program; a checkpoint holds tensors and no program'
            if 'data.pkl' not in names:
                return 'it is a zip file without data.pkl, so torch did not write it'
            if any(part.flag_bits & 1 for part in parts):
                return 'it is encrypted'
            # torch stores tensors uncompressed. A compressed part could be a thousand times as large as the file.
            packed = next((part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED), '')
            if packed:
                return f'its part {packed!r} is compressed, which torch never does (as in a zip bomb)'
            if sum(part.file_size for part in parts) > size:
                return 'its parts are larger than the file (as in a zip bomb)'
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f'{error}, so it is cut short or damaged'
    return f'its part {broken} is damaged' if broken else ''


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b'{' and 2 <= int.from_bytes(head[:8], 'little') <= size - 8


def _read(path: Path, allow_pickle: bool, map_location: Any) -> Any:
    size = path.stat().st_size
    with path.open('rb') as stream:
        if _is_safetensors(stream.read(16), size):
            return load_file(path, device=str(map_location) if map_location is not None else 'cpu')
    try:
        check_globals(path)
        # With their names in the file, which are not the stand-ins' own
        with torch.serialization.safe_globals([(item, name) for name, item in STAND_INS.items()]):
            content = torch.load(path, map_location=map_location, weights_only=True)
        return resolve(content, size, meta=str(map_location) == 'meta')
    except pickle.UnpicklingError:
        if not allow_pickle:
            raise
    return torch.load(path, map_location=map_location, weights_only=False)


def class_names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names in metainfo, none where they are unknown; a UserError if they are no list of names."""
    classes = meta.get('classes') or meta.get('CLASSES') or ()
    names = (classes,) if isinstance(classes, str) else classes
    # Nested lists of a hostile checkpoint would take days and gigabytes to be printed.
    known = isinstance(names, list | tuple) and len(names) <= MAX_CLASSES
    if not known or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
        raise UserError('the class names (dataset_meta of the checkpoint, or metainfo) must be a list of names')
    return tuple(names)
