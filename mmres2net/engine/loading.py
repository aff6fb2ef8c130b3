"""MMEngine's checkpoint loaders replaced by ones that run nothing in a file.

MMEngine reads a file weights-only first, and if that fails reads it again with all that it asks for, with a warning.
Within :func:`safe_loading`, code that loads through MMEngine's ``CheckpointLoader`` gets the loaders of this file: the
runner (``load_from``, ``resume``), its hooks, initializers of type ``Pretrained``, detectors that load a teacher. torch
is told the same for code that calls ``torch.load`` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from mmres2net.errors import UserError
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.reading import FLAG, read_checkpoint

FORCE, FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
TRUE = ('1', 'y', 'yes', 'true')  # as torch reads them
REMOTE = ('http://', 'https://', 'torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://')
STORES = ('pavi://', 's3://', 'petrel://')  # their client libraries fetch and read the file
BACKBONE = 'backbone.'


@contextmanager
def safe_loading(*, allow_pickle: bool = False, work_dir: str | Path | None = None) -> Iterator[None]:
    """Make all loading of checkpoints in this process safe within the block; loaders and torch are restored after it.

    Args:
        allow_pickle: Files may run their code, and stores such as s3:// are left to MMEngine.
        work_dir: Work dir of the run; a resumed run may replace the best checkpoint in it, and no other.

    Raises:
        UserError: The environment tells torch to run the code in checkpoints.
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
        return read_checkpoint(filename, allow_pickle=allow_pickle, map_location=map_location, work_dir=work_dir)

    def load_from_url(filename: str, map_location: Any = None) -> dict[str, Any]:
        return load_from_file(str(fetch_checkpoint(filename)), map_location)

    def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
        """Return the backbone of a classifier, which this scheme means."""
        content = load_from_url(filename, map_location)
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
