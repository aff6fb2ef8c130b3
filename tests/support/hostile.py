"""Checkpoints that run a program when they are unpickled, and others that are none."""

import os
import pickle
import zipfile
from pathlib import Path

import torch


class Payload:
    """Pickles to a call of ``os.system`` that makes the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f'touch "{self.marker}"',)


def hostile(path: Path, marker: Path, *, legacy: bool = False) -> Path:
    """Write a checkpoint of plausible weights whose entry ``meta`` is the payload."""
    content = {'state_dict': {'conv1.weight': torch.ones(2, 2)}, 'meta': Payload(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def with_pickle(path: Path, program: bytes) -> Path:
    """Write a zip in torch's form whose pickle is ``program``."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', program)
        archive.writestr('archive/version', '3\n')
        archive.writestr('archive/byteorder', 'little')
    return path


def works(path: Path, marker: Path) -> None:
    """Prove that a payload is one: unpickled without care, it makes its marker, which is then removed."""
    torch.load(path, weights_only=False)
    marker.unlink()


def plain_pickle(path: Path, marker: Path) -> Path:
    """Write a pickle of the payload alone, in no form of torch."""
    path.write_bytes(pickle.dumps(Payload(marker)))
    return path
