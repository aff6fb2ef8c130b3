"""Checkpoints of a run: fetched and checked before it starts, loaded strictly, by loaders that run nothing in a file.

MMEngine reads a file weights-only first, and if that fails reads it again with all that it asks for, with a warning.
Within :func:`safe_loading`, code that loads through MMEngine's ``CheckpointLoader`` gets the loaders of this file: the
runner (``load_from``, ``resume``), its hooks, initializers of type ``Pretrained``, detectors that load a teacher. torch
is told the same for code that calls ``torch.load`` itself.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import Tensor, nn

from mmres2net.engine.console import say
from mmres2net.errors import UserError
from mmres2net.init_cfg import PretrainedNode, pretrained_nodes
from mmres2net.swap.normalization import set_normalization
from mmres2net.text import join_some
from mmres2net.weights.fetching import fetch_checkpoint, normalization_of_checkpoint
from mmres2net.weights.loading import check_finite
from mmres2net.weights.reading import FLAG, SUFFIXES, read_checkpoint

FORCE, FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
TRUE = ('1', 'y', 'yes', 'true')  # as torch reads them
REMOTE = ('http://', 'https://', 'torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://')
STORES = ('pavi://', 's3://', 'petrel://')  # their client libraries fetch and read the file
BACKBONE = 'backbone.'
MISMATCH = 'do not match exactly'  # in MMEngine's error


def fetch_weights(cfg: Config, *, allow_pickle: bool = False) -> None:
    """Make sure that every checkpoint that the model starts from is on this machine and can be read.

    With ``allow_pickle`` MMEngine's own initializers may run code from their files; ours never do. A UserError says
    that one is missing, cannot be fetched or read, or would be overwritten by the next initializer.
    """
    done: set[tuple[str, bool]] = set()
    for node in _checkpoints(cfg):
        name, ours = node.checkpoint, _is_ours(node)
        unsafe = allow_pickle and not ours
        if (name, ours) in done or (unsafe and is_stored(name)):
            continue
        ways_out = (f'or name a file that you have: --cfg-options {node.path}=FILE', 'or train without: --from-scratch')
        # A name without a scheme is an architecture to our initializer, and a file to MMEngine's.
        is_file = not ours and '://' not in name
        try:
            read_checkpoint(name if is_file else fetch_checkpoint(name, ways_out=ways_out), allow_pickle=unsafe)
        except UserError as error:
            raise UserError(f'{node.path}={name}: {error}') from error
        done.add((name, ours))


def check_checkpoint(file: str | Path, role: str, *, allow_pickle: bool = False) -> str:
    """Return a checkpoint's path after a check that it can be read; a URL is fetched.

    With ``allow_pickle``, names in stores such as s3:// and folders (sharded checkpoints of FSDP or DeepSpeed) are
    returned as they are, for MMEngine to read.

    A UserError says that there is no such file, that it is damaged, or that it would run code; it names the ``role`` of
    the file in the run.
    """
    name = str(file)
    try:
        if is_stored(name):
            return name if allow_pickle else load_from_store(name)['']
        path = fetch_checkpoint(name) if '://' in name else Path(os.path.expanduser(name))
        if path.is_dir() and any(path.iterdir()):
            if not allow_pickle:
                raise UserError(
                    f'{path} is a folder. A sharded checkpoint of FSDP or DeepSpeed is read by code that runs what is '
                    f'in it: give {FLAG} if you know and trust its source'
                )
            return str(path)
        read_checkpoint(path, allow_pickle=allow_pickle)
    except UserError as error:
        raise UserError(f'{role}: {error}') from error
    return str(path)


def load_state_strictly(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights by MMEngine's rules for ``strict=True``.

    Counters of batches may be missing, and modules that adapt what they load (such as position embeddings of another
    image size) do so.

    Raises:
        UserError: Names or shapes differ, or values are NaN or infinite; the message has the ``name`` of the weights.
    """
    with mismatch_as_user_error(name):
        load_state_dict(model, dict(state), strict=True)
    try:
        check_finite(state)
    except UserError as error:
        raise UserError(f'the checkpoint {name}: {error}') from error


def log_left_out(own: Mapping[str, Tensor], state: Mapping[str, Any], file: str) -> None:
    """Log which weights that a run starts from have other shapes than its model, as heads for other classes have.

    Raises:
        UserError: None fits.
    """
    shapes = {name.removeprefix('module.'): value.shape for name, value in state.items() if isinstance(value, Tensor)}
    found = {name: shapes[name] == value.shape for name, value in own.items() if name in shapes}
    other = [name for name, fits in found.items() if not fits]
    if shapes and len(other) == len(found):
        raise UserError(f'load_from={file} has no weight that fits the model; name a checkpoint of this architecture')
    if other:
        what = f'{len(other)} of {len(found)} tensors have other shapes and start from random values'
        say(f'load_from={file}: {what}: {join_some(other)}')


@contextmanager
def mismatch_as_user_error(checkpoint: str | Path) -> Iterator[None]:
    """Turn MMEngine's error of a strict loading into a UserError that names the ``checkpoint``."""
    try:
        yield
    except RuntimeError as error:
        if MISMATCH not in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        listed = '\n  '.join(line if len(line) < 300 else f'{line[:300]} ...' for line in lines[:5])
        raise UserError(
            f'the checkpoint {checkpoint} does not fit the config:\n  {listed}\n'
            'use it with the config that it was trained with; the work dir of that run holds a copy'
        ) from error


def check_normalization(cfg: Config) -> list[str]:
    """Check that images are normalized as published weights need it; return what could not be checked.

    Only weights whose input is known are looked at: those of the published table and of timm, by name or URL.

    Raises:
        UserError: The data preprocessor normalizes otherwise; the message has the settings to use.
    """
    notes: dict[str, None] = {}
    for node in _checkpoints(cfg):
        wanted = normalization_of_checkpoint(node.checkpoint) if _is_ours(node) else None
        if wanted is None:
            continue
        try:
            lines = set_normalization(copy.deepcopy(cfg), wanted)
        except UserError as error:
            notes[f'cannot check that images are normalized for {node.checkpoint}: {error}'] = None
            continue
        if lines:
            options = ' '.join(f'"{line.split()[0]}={line.rpartition(" -> ")[2].replace(" ", "")}"' for line in lines)
            raise UserError(
                f'the weights {node.checkpoint} ({node.path}) need images normalized in another way; change\n  '
                + '\n  '.join(lines)
                + f'\nin the config, or give --cfg-options {options}'
            )
    return list(notes)


def _is_ours(node: PretrainedNode) -> bool:
    return getattr(node.type, '__module__', str(node.type)).startswith('mmres2net.')


def _checkpoints(cfg: Config) -> Iterator[PretrainedNode]:
    """Yield the checkpoints that the model starts from and that are named as text."""
    for node in pretrained_nodes(cfg.get('model') or {}):
        if _is_ours(node) and not node.is_last:
            raise UserError(f'{node.path}: {node.type} must be last, or the next initializer overwrites what it loads')
        if node.type and not isinstance(node.checkpoint, str):
            raise UserError(f'{node.path}={node.checkpoint!r}: name a checkpoint, by a name, a path or a URL')
        if node.type or ('://' in str(node.checkpoint) or str(node.checkpoint).endswith(SUFFIXES)):
            yield node


@contextmanager
def safe_loading(*, allow_pickle: bool = False, work_dir: str | Path | None = None) -> Iterator[None]:
    """Make all loading of checkpoints in this process safe within the block; loaders and torch are restored after it.

    With ``allow_pickle`` files may run their code, and stores such as s3:// are left to MMEngine. A resumed run may
    replace the best checkpoint in ``work_dir``, and no other. A UserError says that the environment tells torch to run
    the code in checkpoints.
    """
    if os.environ.get(FORCE_NOT) in TRUE and not allow_pickle:
        raise UserError(f'{FORCE_NOT} is set, so torch would run the code in checkpoints; unset it')
    variable, schemes = os.environ.pop(FORCE, None), CheckpointLoader._schemes.copy()
    if not allow_pickle:
        os.environ[FORCE] = '1'
    try:
        _register(allow_pickle, work_dir)
        yield
    finally:
        CheckpointLoader._schemes = schemes
        os.environ.pop(FORCE, None)
        if variable is not None:
            os.environ[FORCE] = variable


def is_stored(name: str) -> bool:
    """Whether a checkpoint is in a store that only the client library of the store can read."""
    return any(store in name for store in STORES)


def _register(allow_pickle: bool, work_dir: str | Path | None) -> None:
    # MMEngine logs the names of loaders from their eleventh letter on.
    def load_from_file(filename: str, map_location: Any = None) -> dict[str, Any]:
        # On a GPU, optimizers would keep their counters of steps there, and wait for each of them in every step.
        return read_checkpoint(filename, allow_pickle=allow_pickle, work_dir=work_dir)

    def load_from_url(filename: str, map_location: Any = None) -> dict[str, Any]:
        return load_from_file(str(fetch_checkpoint(filename)))

    def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
        """Return the backbone of a classifier, which this scheme means."""
        content = load_from_url(filename)
        state = content.get('state_dict', content)
        return {'state_dict': {name.removeprefix(BACKBONE): state[name] for name in state if name.startswith(BACKBONE)}}

    loaders = {'': load_from_file, 'mmcls://': load_from_mmcls, **dict.fromkeys(REMOTE, load_from_url)}
    for scheme in list(CheckpointLoader._schemes):
        if scheme in loaders:
            CheckpointLoader.register_scheme(scheme, loaders[scheme], force=True)
        elif not allow_pickle:
            CheckpointLoader.register_scheme(scheme, load_from_store, force=True)


def load_from_store(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse, in place of loaders that cannot be made safe."""
    raise UserError(
        f'{filename} is in a store whose client library may run code from the file: download it and name the file, or '
        f'give {FLAG} if you know and trust its source'
    )
