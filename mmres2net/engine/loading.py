"""MMEngine's checkpoint loaders replaced by ones that run nothing of a file.

MMEngine reads a file weights-only first, and where that fails reads it again with all that it asks for, with a warning.
Within :func:`safe_loading` whoever loads through MMEngine's ``CheckpointLoader`` gets the loaders of this file instead:
the runner (``load_from``, ``resume``), its hooks, initialisers of type ``Pretrained``, detectors that load a teacher.
torch is told the same for code that calls ``torch.load`` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import CheckpointLoader

from mmres2net.errors import UserError
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.reading import read_checkpoint

FORCE, FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
TRUE = ('1', 'y', 'yes', 'true')  # as torch reads them
REMOTE = ('http://', 'https://', 'torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://')
# Storage of companies, whose clients bring the file by code of their own.
CLOSED = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


@contextmanager
def safe_loading(*, allow_pickle: bool = False) -> Iterator[None]:
    """Within the block all loading of checkpoints in this process is safe, or as it was with ``allow_pickle``.

    MMEngine's loaders stay the safe ones behind the block; torch is as it was before.

    Raises:
        UserError: The environment tells torch to run what is in checkpoints.
    """
    if os.environ.get(FORCE_NOT) in TRUE and not allow_pickle:
        raise UserError(f'{FORCE_NOT} is set, so torch would run the code in checkpoints; unset it')
    before = os.environ.pop(FORCE, None)
    if not allow_pickle:
        os.environ[FORCE] = '1'
    _register(allow_pickle)
    try:
        yield
    finally:
        _register(False)
        os.environ.pop(FORCE, None)
        if before is not None:
            os.environ[FORCE] = before


def _register(allow_pickle: bool) -> None:
    # MMEngine logs the names of loaders from their eleventh letter on.
    def load_from_file(filename: str, map_location: Any = None) -> dict[str, Any]:
        return read_checkpoint(filename, allow_pickle=allow_pickle, map_location=map_location)

    def load_from_address(filename: str, map_location: Any = None) -> dict[str, Any]:
        path = fetch_checkpoint(filename)
        return read_checkpoint(path, allow_pickle=allow_pickle, map_location=map_location)

    def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
        """Return a classifier's backbone alone, which this scheme stands for."""
        content = load_from_address(filename, map_location)
        state = content.get('state_dict', content)
        prefix = 'backbone.'
        return {'state_dict': {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}}

    CheckpointLoader.register_scheme('', load_from_file, force=True)
    CheckpointLoader.register_scheme(list(REMOTE), load_from_address, force=True)
    CheckpointLoader.register_scheme('mmcls://', load_from_mmcls, force=True)
    CheckpointLoader.register_scheme(list(CLOSED), load_from_nowhere, force=True)


def load_from_nowhere(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Stand for loaders that cannot be made safe.

    Raises:
        UserError: Always.
    """
    raise UserError(f'{filename} is in a storage that cannot be read safely from here; fetch it and name the file')
