"""Checkpoints of a run: fetched and checked before it starts, loaded strictly, by loaders that run nothing in a file.

MMEngine reads a file weights-only first, and if that fails reads it again with all that it asks for, with a warning.
Within :func:`safe_loading`, code that loads through MMEngine's ``CheckpointLoader`` gets the loaders of this file.
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
from mmres2net.weights.reading import FLAG, SUFFIXES, read_checkpoint, weights_key

FORCE, FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
TRUE = ('1', 'y', 'yes', 'true')  # as torch reads them
MISMATCH = 'do not match exactly'  # in MMEngine's error


def fetch_weights(cfg: Config, *, allow_pickle: bool = False) -> None:
    """Check that all checkpoints to start from can be read; with ``allow_pickle`` MMEngine may run code in its own."""
    for node in _checkpoints(cfg):
        name, unsafe = node.checkpoint, allow_pickle and not _is_ours(node)
        ways_out = (f'or name a file that you have: --cfg-options {node.path}=FILE', 'or train without: --from-scratch')
        # A name without a scheme is an architecture to our initializer, and a file to MMEngine's.
        is_file = not _is_ours(node) and '://' not in name
        try:
            read_checkpoint(name if is_file else fetch_checkpoint(name, ways_out=ways_out), allow_pickle=unsafe)
        except UserError as error:
            raise UserError(f'{node.path}={name}: {error}') from error


def check_checkpoint(file: str | Path, role: str, *, allow_pickle: bool = False) -> str:
    """Return a checkpoint's path after a check that it can be read; a URL is fetched.

    With ``allow_pickle`` folders (sharded checkpoints of FSDP or DeepSpeed) are returned as they are, for MMEngine to
    read. A UserError says that there is no such file, that it is damaged, or that it would run code; it names the
    ``role`` of the file in the run.
    """
    name = str(file)
    try:
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
    """Load weights by MMEngine's rules for ``strict=True``; a UserError for other names, shapes, NaN or infinity."""
    with mismatch_as_user_error(name):
        load_state_dict(model, dict(state), strict=True)
    try:
        check_finite(state)
    except UserError as error:
        raise UserError(f'the checkpoint {name}: {error}') from error


def log_left_out(own: Mapping[str, Tensor], state: Mapping[str, Any], file: str) -> None:
    """Log which weights have other shapes than the model, as heads for other classes have; a UserError if none fits."""
    shapes = {name.removeprefix('module.'): value.shape for name, value in state.items() if isinstance(value, Tensor)}
    found = {name: shapes[name] == value.shape for name, value in own.items() if name in shapes}
    other = [name for name, fits in found.items() if not fits]
    if len(other) == len(found) and not Path(file).is_dir():  # a sharded one holds its weights elsewhere
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
    """Check that images are normalized as published weights need it, else a UserError; return what is unknown."""
    notes: list[str] = []
    for node in _checkpoints(cfg):
        wanted = normalization_of_checkpoint(node.checkpoint) if _is_ours(node) else None
        if wanted is None:
            continue
        try:
            lines = set_normalization(copy.deepcopy(cfg), wanted)
        except UserError as error:
            notes.append(f'cannot check that images are normalized for {node.checkpoint}: {error}')
            lines = []
        if lines:
            options = ' '.join(f'"{line.split()[0]}={line.rpartition(" -> ")[2].replace(" ", "")}"' for line in lines)
            raise UserError(
                f'the weights {node.checkpoint} ({node.path}) need images normalized in another way; change\n  '
                + '\n  '.join(lines)
                + f'\nin the config, or give --cfg-options {options}'
            )
    return notes


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

    With ``allow_pickle`` files may run their code. A resumed run may replace the best checkpoint in ``work_dir``, and
    no other. A UserError says that the environment tells torch to run the code in checkpoints.
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


def _register(allow_pickle: bool, work_dir: str | Path | None) -> None:
    # MMEngine logs the names of loaders from their eleventh letter on.
    def load_from_file(filename: str, map_location: Any = None) -> dict[str, Any]:
        # On a GPU, optimizers would keep their counters of steps there, and wait for each of them in every step.
        content = read_checkpoint(filename, allow_pickle=allow_pickle, work_dir=work_dir)
        key = '' if 'state_dict' in content else weights_key(content)  # as other tools name it
        return {**content, 'state_dict': content[key]} if key else content

    def load_from_url(filename: str, map_location: Any = None) -> dict[str, Any]:
        return load_from_file(str(fetch_checkpoint(filename)))

    def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
        """Return the backbone of a classifier, which this scheme means."""
        content = load_from_url(filename)
        state = content.get('state_dict', content)
        kept = {key.removeprefix('backbone.'): state[key] for key in state if key.startswith('backbone.')}
        return {'state_dict': kept}

    loaders = {'': load_from_file, 'mmcls://': load_from_mmcls}
    for scheme in list(CheckpointLoader._schemes):  # of stores such as s3:// ours refuses to read
        CheckpointLoader.register_scheme(scheme, loaders.get(scheme, load_from_url), force=True)
