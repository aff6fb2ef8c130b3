"""Read a checkpoint as data: nothing in it is run, and one that is broken or hostile is one clear error.

torch reads the file with ``weights_only=True``. What could harm that reader or its caller is checked around it: the
form of the file and the checksums of its parts before, the size of what it expands to after.
"""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._weights_only_unpickler import _get_allowed_globals

from mmres2net.errors import UserError, reason_of
from mmres2net.text import join_some
from mmres2net.weights.pickles import STAND_INS, check_pickles, is_zip, resolve

FLAG = '--allow-unsafe-checkpoint'
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
MAX_CLASSES, MAX_NAME = 100_000, 1_000  # more are not class names but an attack
RETRY = 'Delete it and download or write it again, or name another file'
# In order of preference. An average of weights comes before the weights, as timm reads its own checkpoints. MMEngine
# needs no such rule: with its EMA hook `state_dict` is the average, and `ema_state_dict` is what training resumes from.
WEIGHT_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and of torch.compile


def read_checkpoint(
    path: str | Path, *, allow_pickle: bool = False, work_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU; nothing in the file is run. A UserError says why it cannot be read.

    Reads torch's zip files, torch's form before version 1.6, and safetensors (a flat dict of tensors). Besides tensors
    and plain Python values, MMEngine's records of a run are read, so that a run can be resumed.

    Args:
        allow_pickle: Also read a file that needs its code to be run. Only for files from a trusted source.
        work_dir: Work dir of a run that resumes from the file, whose own best checkpoint it may replace.
    """
    path = Path(os.path.expanduser(path))
    check_file(path)
    names: dict[str, None] = {}
    try:
        content = _read(path, names, allow_pickle)
    except Exception as error:  # a broken file ends the reader at any place, in any way
        refused = isinstance(error, pickle.UnpicklingError)
        code = [name for name in names if name not in {**_get_allowed_globals(), **STAND_INS}]
        if refused and code:
            raise UserError(
                f'{path} is refused: reading it would run code that it names: {join_some(code)}. Nothing was run.\n'
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

    ``meta.config`` is run as a Python file. What has ``ckpt`` in its name in the message hub names files and folders
    that are deleted when a better checkpoint is saved; a path is kept only if there is a best checkpoint of this name
    in ``work_dir``, which may have been moved since.
    """
    meta, hub = content.get('meta'), content.get('message_hub')
    if isinstance(meta, dict):
        meta.pop('config', None)
    info: Any = hub.get('runtime_info') if isinstance(hub, dict) else None
    keys: Any = hub.get('resumed_keys') if isinstance(hub, dict) else None
    for key in [key for key in info if 'ckpt' in str(key)] if isinstance(info, dict) else ():
        value = info.pop(key)
        name = Path(value).name if isinstance(value, str) else ''
        own = Path(work_dir or '').absolute() / name
        if work_dir and name.startswith('best_') and own.is_file() and not own.is_symlink():
            info[key] = str(own)
        elif key == 'keep_ckpt_ids' and isinstance(value, list) and all(type(entry) is int for entry in value):
            info[key] = value  # they become part of file names
        elif isinstance(keys, dict):
            keys.pop(key, None)


def weights_key(content: Mapping[str, Any], key: str | None = None) -> str:
    """Return ``key``, or the first of :data:`WEIGHT_KEYS` that holds weights; '' if ``content`` itself holds them."""
    holders = [name for name, value in content.items() if isinstance(value, Mapping) and _tensors(value)]
    if key is not None and key not in holders:
        what = f'no weights under the key {key!r}'
        raise UserError(f'{what}; this file has weights under: {", ".join(map(str, holders)) or "none"}')
    return key if key is not None else next((name for name in WEIGHT_KEYS if name in holders), '')


def unwrap(content: Mapping[str, Any], *, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights under ``key`` (None: :data:`WEIGHT_KEYS`) by name, without the prefixes of wrappers."""
    entry = weights_key(content, key)
    tensors = _tensors(content[entry] if entry else content)
    if not tensors:
        there = join_some([repr(name) for name in content]) or 'nothing'
        raise UserError(f'no weights by name or under {", ".join(WEIGHT_KEYS)}: the file holds {there}; name a key')
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
    """Check a file's form before its content is read: its first bytes, a zip's parts and checksums."""
    if not path.is_file():
        raise UserError(f'no checkpoint at {path}')
    try:
        with path.open('rb') as stream:
            head, size = stream.read(64), path.stat().st_size
        fault = '' if _is_safetensors(head, size) or head[:1] == b'\x80' else f'it begins with {head!r}'
        fault = _fault_of_zip(path, size) if is_zip(head) else fault
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error
    if fault:
        raise UserError(f'{path} is not a complete checkpoint: {fault}. {RETRY}')


def _fault_of_zip(path: Path, size: int) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            names = [part.filename.rpartition('/')[2] for part in parts]
            if 'data.pkl' not in names or 'constants.pkl' in names:
                return 'it is a zip file that torch.save did not write, such as a TorchScript program'
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


def _read(path: Path, names: dict[str, None], allow_pickle: bool) -> Any:
    size = path.stat().st_size
    with path.open('rb') as stream:
        if _is_safetensors(stream.read(16), size):
            return load_file(path)
    try:
        check_pickles(path, names)
        # With their names in the file, which are not the stand-ins' own
        with torch.serialization.safe_globals([(item, name) for name, item in STAND_INS.items()]):
            content = torch.load(path, map_location='cpu', weights_only=True)
        return resolve(content, size)
    except pickle.UnpicklingError:
        if not allow_pickle:
            raise
    return torch.load(path, map_location='cpu', weights_only=False)


def class_names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names in metainfo, none where they are unknown; a UserError if they are no list of names."""
    classes = meta.get('classes') or meta.get('CLASSES') or ()
    names = (classes,) if isinstance(classes, str) else classes
    # Nested lists of a hostile checkpoint would take days and gigabytes to be printed.
    known = isinstance(names, list | tuple) and len(names) <= MAX_CLASSES
    if not known or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
        raise UserError('the class names (dataset_meta of the checkpoint, or metainfo) must be a list of names')
    return tuple(names)
