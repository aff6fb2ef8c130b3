"""What an evaluation was made from, kept beside what it found: so that it is not used where something has changed."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import datasets_of, needed_paths
from mmres2net.environment import OPENMMLAB, PACKAGE, installed_of
from mmres2net.files import digest_of, write_atomic

FILE = 'evaluation/made_from.json'
FORM = 1  # of the arrays; another one is made again
SETTINGS = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg', 'default_scope')
SMALL = 2**16  # bytes; of larger images name, size and time of change tell


def made_from(cfg: Config, checkpoint: str) -> dict[str, Any]:
    """Return the checkpoint, hashes of it, of the settings of a test and of its data, and versions."""
    settings = json.dumps({key: cfg.get(key) for key in SETTINGS}, sort_keys=True, default=str)
    versions = {'python': platform.python_version()}
    for names in (('torch', PACKAGE), *OPENMMLAB.values()):
        versions |= installed_of(names)
    return {
        'form': FORM,
        'checkpoint': str(Path(checkpoint).resolve()),
        'sha256': digest_of(Path(checkpoint)),
        'settings': hashlib.sha256(settings.encode()).hexdigest(),
        'data': _data_hash(cfg),
        'versions': versions,
    }


def _data_hash(cfg: Config) -> str:
    digest = hashlib.sha256()
    for dataset in datasets_of(cfg, 'test'):
        root = Path(dataset.get('data_root') or '')
        for place in [root / path for path in needed_paths(dataset)] or [root]:
            for file in sorted(place.rglob('*')) if place.is_dir() else [place]:
                if file.is_file():
                    facts = file.stat()
                    digest.update(f'{file.name} {facts.st_size}'.encode())
                    known = facts.st_size < SMALL or file == place
                    digest.update(file.read_bytes() if known else str(facts.st_mtime_ns).encode())
    return digest.hexdigest()


def write_provenance(cfg: Config, checkpoint: str) -> None:
    """Write what a test was made from into its work dir."""
    if Path(checkpoint).is_file() and (target := Path(cfg.work_dir) / FILE).parent.is_dir():
        write_atomic(target, json.dumps(made_from(cfg, checkpoint), indent=1))


def is_made_from(folder: Path, expected: dict[str, Any]) -> bool:
    """Whether the evaluation kept in ``folder`` was made from what is ``expected``."""
    keys = ('form', 'sha256', 'settings', 'data')
    found = read_provenance(folder)
    return all(found.get(key) == expected[key] for key in keys)


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return what was written into ``folder``; nothing where there is nothing that can be read."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
