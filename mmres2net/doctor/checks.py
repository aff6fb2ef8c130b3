"""Checks of installed packages by their metadata, and of the machine. Nothing but the standard library is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmres2net import environment as env

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
IMPORT_NAMES = {'cv2': env.OPENCV, **env.OPENMMLAB}
GB = 10**9


class Result(NamedTuple):
    """What was checked; ``fail``, ``warn``, ``skip``, ``note`` or ``ok``; what was found; what to do about it."""

    name: str
    status: str
    detail: str
    remedy: str = ''


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Result]:
    """Compare the Python version with those that the project supports and is tested with."""
    status = 'fail' if version < (3, 10) else 'warn' if version >= (3, 14) else 'ok'
    detail = f'{".".join(map(str, version))} at {sys.executable}'
    yield Result('Python', status, detail, '' if status == 'ok' else 'use Python 3.10 to 3.13')


def check_libraries(required: Sequence[str] = ()) -> Iterator[Result]:
    """Check that OpenMMLab's libraries and OpenCV have one distribution each, and that OpenMMLab's are of one family.

    The absence of ``required`` libraries is a failure; that of mmengine, mmcv and OpenCV always is.
    """
    original = []
    for module, distributions in IMPORT_NAMES.items():
        found = env.installed_of(distributions)
        text = ' and '.join(f'{name} {version}' for name, version in found.items())
        install = f'pip install "{env.requirement_on(distributions[0])}"'
        if len(found) > 1:
            # Two OpenCV packages of one version have the same files, until one is uninstalled.
            status = 'warn' if module == 'cv2' and len(set(found.values())) == 1 else 'fail'
            remedy = f'pip uninstall -y {" ".join(found)} && {install}'
            yield Result(module, status, f'{text} both install {module}', remedy)
        elif found and importlib.util.find_spec(module) is None:
            yield Result(module, 'fail', f'the files of {text} are missing', f'{install} --force-reinstall')
        elif not found:
            missing = module in required or module not in LIBRARIES
            yield Result(module, 'fail' if missing else 'note', 'not installed', install)
        original += [name for name in found if module != 'cv2' and name != distributions[0]]
    if original and any(env.installed_version(distributions[0]) for distributions in env.OPENMMLAB.values()):
        remedy = f'pip uninstall -y {" ".join(original)}, then install {env.PACKAGE} with its extras again'
        yield Result('OpenMMLab', 'fail', f'original {", ".join(original)} beside maintained onedl-* packages', remedy)


def check_requirements() -> Iterator[Result]:
    """Check the requirements of the package and, as ``pip check`` does, those of all that it requires.

    What contradicts the package's own ranges, or torchvision's pin of torch, is a failure, anything else a warning.
    """
    from packaging.requirements import Requirement

    queue = [env.PACKAGE, *(name for group in env.OPENMMLAB.values() for name in env.installed_of(group))]
    for owner in queue:  # grows
        for wanted in map(Requirement, env.requirements_of(owner)):
            version = env.installed_version(wanted.name)
            optional = wanted.marker is not None and not wanted.marker.evaluate({'extra': ''})
            replaced = any(env.installed_of(group) for group in IMPORT_NAMES.values() if wanted.name in group)
            if (optional and owner != env.PACKAGE) or (version is None and (optional or replaced)):
                continue
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                text = str(wanted).partition(';')[0].strip()
                status = 'fail' if owner in (env.PACKAGE, 'torchvision') else 'warn'
                detail = f'{owner} requires {text}; installed: {version or "none"}'
                yield Result(wanted.name, status, detail, f'pip install "{text}"')
            elif wanted.name not in queue:
                queue.append(wanted.name)


def check_machine() -> Iterator[Result]:
    """Check memory, threads, disk space, and that runs can write into the folders that they use."""
    memory, cores, threads = env.available_memory(), env.granted_cores(), os.environ.get('OMP_NUM_THREADS', '')
    if memory is not None and memory < 4 * GB:
        detail = f'{memory / GB:.1f} GB available; training with two loader workers needs about 4 GB'
        yield Result('memory', 'warn', detail, 'stop other programs, or use smaller batches or fewer num_workers')
    if (int(threads) if threads.isdigit() else env.visible_cores()) > cores:
        detail = f'{cores:g} of {env.visible_cores()} cores granted, OMP_NUM_THREADS={threads or "(not set)"}'
        yield Result('cores', 'warn', detail, f'export OMP_NUM_THREADS={max(1, int(cores))}')
    if (disk := env.free_disk('work_dirs')) < 3 * GB:
        detail = f'{disk / GB:.1f} GB free; a run keeps up to 3 GB of checkpoints'
        yield Result('disk', 'warn', detail, 'choose another disk with --work-dir')
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    for setting, folder in (('--work-dir', Path.cwd()), ('TMPDIR', tempfile.gettempdir()), ('XDG_CACHE_HOME', cache)):
        try:
            existing = next(place for place in (Path(folder), *Path(folder).parents) if place.exists())
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            yield Result('folders', 'fail', f'{folder}: {error.strerror}', f'choose a writable folder with {setting}')
