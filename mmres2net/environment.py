"""Facts of the environment: versions, cores, memory, disk space and the GPU driver.

The standard library alone is imported, so that this works before anything is installed and where torch is broken.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from pathlib import Path

PACKAGE = 'mmres2net'
# The distributions that install each OpenMMLab library: the maintained one first, then the originals.
OPENMMLAB = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-full', 'mmcv-lite'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
# All of them install the package cv2; the headless ones need no libGL.
OPENCV = ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python', 'opencv-contrib-python-headless')

CGROUP = Path('/sys/fs/cgroup')
PROC = Path('/proc')


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_of(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return those of ``distributions`` that are installed, with their versions."""
    versions = ((name, installed_version(name)) for name in distributions)
    return {name: version for name, version in versions if version is not None}


def requirements_of(distribution: str) -> list[str]:
    """Return the requirements of an installed distribution, such as ``'pillow>=10.1'``; none if it is not installed."""
    return (importlib.metadata.requires(distribution) or []) if installed_version(distribution) else []


def requirement_on(name: str) -> str:
    """Return the requirement of mmres2net on a distribution, such as ``'onedl-mmcv>=2.3.6,<2.4'``."""
    texts = [line.partition(';')[0].strip() for line in requirements_of(PACKAGE)]
    return next((text for text in texts if re.match(rf'{re.escape(name)}\s*[<>=!~]', text)), name)


def visible_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def granted_cores() -> float:
    """Return the CPU time that this process gets, in cores: the visible ones, or less by the quota of a container."""
    quotas = [text.split() for text in _control_files('cpu.max') if text]
    limits = [int(quota) / int(period) for quota, period in quotas if quota.isdigit() and period.isdigit()]
    return min([visible_cores(), *limits])


def available_memory() -> int | None:
    """Return the available bytes of memory, within the limit of a container; None where the system does not tell."""
    found = re.search(r'MemAvailable:\s+(\d+) kB', _read(PROC / 'meminfo'))
    if found is None:
        return None
    free = [int(found[1]) * 1024]
    names = ('memory.max', 'memory.current', 'memory.stat')
    for limit, used, stat in zip(*(_control_files(name) for name in names), strict=True):
        if limit.isdigit() and used.isdigit():
            # Files in the page cache count as used, but the kernel frees them when memory is short.
            cache = re.search(r'^inactive_file (\d+)', stat, re.MULTILINE)
            free.append(int(limit) - int(used) + (int(cache[1]) if cache else 0))
    return max(0, min(free))


def computes_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16: x86 with AVX-512 BF16 or AMX, or ARM; Linux only."""
    return not {'avx512_bf16', 'amx_bf16', 'bf16'}.isdisjoint(cpu_field('flags|Features').split())


def cpu_field(names: str) -> str:
    """Return a field of Linux's description of the processor by its ``names`` (a|b), an empty string elsewhere."""
    field = re.search(rf'^(?:{names})\s*:(.*)$', _read(PROC / 'cpuinfo'), re.MULTILINE)
    return field[1].strip() if field else ''


def _control_files(name: str) -> list[str]:
    """Return a control file of this process's cgroup and of those above it (cgroup v2), '' where one is missing."""
    own = re.search(r'^0::/(.*)$', _read(PROC / 'self/cgroup'), re.MULTILINE)
    group = Path(own[1] if own else '')
    return [_read(CGROUP / folder / name) for folder in (group, *group.parents)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ''


def free_disk(folder: str | os.PathLike[str]) -> int:
    """Return the free bytes of the file system that holds ``folder``, or that would hold it once made."""
    path = Path(folder).expanduser().absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def nvidia_driver() -> str | None:
    """Return the version of the NVIDIA kernel driver; None without one."""
    text = _read(PROC / 'driver/nvidia/version')
    found = re.search(r'Kernel Module.*?\s(\d+\.[\d.]+)', text)
    return found[1] if found else 'unknown' if text else None
