"""Room on the disks, memory, cores, and folders that have to be writable."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmres2net.doctor.result import Result

GB = 10**9
# A checkpoint of the largest shipped model (Mask R-CNN R2-101, 65 M parameters, momentum) takes 0.5 GB, a run keeps
# up to five at a time: three, the best, and the one being written.
CHECKPOINT_GB, RUN_GB = 1.0, 3.0
# Importing torch, mmcv and a host takes 0.7 GB; a training process with two loader workers takes about 4.
IMPORT_GB, TRAIN_GB = 1.0, 4.0
SHARED_GB = 1.0  # loader workers hand batches over in shared memory; Docker gives 64 MB of it
PROC = Path('/proc/meminfo')
CGROUP = Path('/sys/fs/cgroup')
SHM = Path('/dev/shm')


def free_disk(folder: Path) -> float:
    """Return the free GB where a folder lies or would lie."""
    return shutil.disk_usage(_standing(folder)).free / GB


def _standing(folder: Path) -> Path:
    folder = folder.expanduser().absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_disk() -> Iterator[Result]:
    """Check the room for checkpoints where runs write, from the current folder, and the one for temporary files."""
    work, temporary = Path('work_dirs').absolute(), Path(tempfile.gettempdir())
    free = free_disk(work)
    text = f'{free:.1f} GB free at {_standing(work)}'
    remedy = 'free some space, or give another disk with --work-dir'
    if free < CHECKPOINT_GB:
        yield Result('disk', 'fail', f'{text}: too little for two checkpoints of a large model', remedy)
    elif free < RUN_GB:
        yield Result('disk', 'warn', f'{text}: runs of large models keep up to {RUN_GB:.0f} GB', remedy)
    else:
        yield Result('disk', 'ok', text)
    if (free := free_disk(temporary)) < 0.1:
        yield Result('disk', 'fail', f'{free:.2f} GB free at {temporary}', 'free some space there, or set TMPDIR')


def free_memory() -> float | None:
    """Return the GB of memory that are available within the limit of a container; None where the system is silent."""
    try:
        free = int(re.findall(r'MemAvailable:\s+(\d+) kB', PROC.read_text())[0]) * 1024
    except (OSError, IndexError):
        return None

    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or `max`
        free = min(free, int((CGROUP / 'memory.max').read_text()) - int((CGROUP / 'memory.current').read_text()))
    return free / GB


def check_memory() -> Iterator[Result]:
    """Check the memory for a training process and its loaders, and what those share."""
    free = free_memory()
    remedy = 'end other programs, or train with smaller images, batches or fewer num_workers'
    if free is None:
        yield Result('memory', 'skip', 'this system does not tell what is available')
    elif free < IMPORT_GB:
        yield Result('memory', 'fail', f'{free:.1f} GB available: not enough to load the libraries and a model', remedy)
    elif free < TRAIN_GB:
        yield Result('memory', 'warn', f'{free:.1f} GB available: training takes about {TRAIN_GB:.0f}', remedy)
    else:
        yield Result('memory', 'ok', f'{free:.1f} GB available')
    if SHM.is_dir() and (shared := shutil.disk_usage(SHM).total / GB) < SHARED_GB:
        detail = f'{shared:.2f} GB at {SHM}: loader workers die of it ("bus error")'
        yield Result('shared memory', 'warn', detail, 'docker run --shm-size 8g, or num_workers=0 in the config')


def visible_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def granted_cores() -> float:
    """Return how many cores' worth of time this process gets: those it sees, within the quota of a container."""
    try:
        quota, period = (CGROUP / 'cpu.max').read_text().split()
        return min(visible_cores(), int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or `max`
        return visible_cores()


def check_cores(environment: Mapping[str, str] | None = None) -> Iterator[Result]:
    """Check that torch will not start more threads than there is time for: it does not see a container's quota."""
    value = (os.environ if environment is None else environment).get('OMP_NUM_THREADS', '')
    seen, granted = visible_cores(), granted_cores()
    text = f'{granted:g} cores' if granted == seen else f'{granted:g} of {seen} cores by quota'
    text += f', OMP_NUM_THREADS={value}' if value else ', OMP_NUM_THREADS not set: as many threads as cores'
    threads = int(value) if value.isdigit() else seen
    if threads > granted:
        detail = f"{text}; {threads} threads get in each other's way"
        yield Result('cores', 'warn', detail, f'export OMP_NUM_THREADS={max(1, int(granted))}')
    else:
        yield Result('cores', 'ok', text)


def caches(environment: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Return the folders that runs write into outside of the work folder, by the variable that moves each."""
    environment = os.environ if environment is None else environment
    base = Path(environment.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    return {'XDG_CACHE_HOME': base, 'TORCH_HOME': Path(environment.get('TORCH_HOME') or base / 'torch').expanduser()}


def check_writable() -> Iterator[Result]:
    """Write a file into the current folder and into each cache, or where that would be made."""
    places = {'--work-dir': Path.cwd(), 'TMPDIR': Path(tempfile.gettempdir()), **caches()}
    bad = False
    for way, folder in places.items():
        try:
            with tempfile.TemporaryFile(dir=_standing(folder)):
                pass
        except OSError as error:
            bad = True
            remedy = f'give another folder with {way}' if way.startswith('-') else f'set {way} to a folder of your own'
            yield Result('writable', 'fail', f'{folder}: {error.strerror}', remedy)
    if not bad:
        yield Result('writable', 'ok', ', '.join(sorted({str(folder) for folder in places.values()})))
