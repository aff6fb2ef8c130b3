"""Disk, memory, cores and folders of made-up machines."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mmres2net.doctor import machine
from mmres2net.doctor.result import Result

Usage = namedtuple('Usage', 'total used free')


def give(monkeypatch: pytest.MonkeyPatch, free: float, total: float = 100.0) -> None:
    usage = Usage(int(total * 1e9), 0, int(free * 1e9))
    monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage)


@pytest.mark.parametrize(
    ('free', 'statuses'), [(50, ['ok']), (2.9, ['warn']), (0.9, ['fail']), (0.05, ['fail', 'fail'])]
)
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, statuses: list[str]) -> None:
    give(monkeypatch, free)
    found = list(machine.check_disk())
    assert [result.status for result in found] == statuses
    assert f'{free:.1f} GB free' in found[0].detail
    if len(found) == 2:
        assert 'TMPDIR' in found[1].remedy


def write_memory(monkeypatch: pytest.MonkeyPatch, folder: Path, free: float, limit: str = 'max') -> None:
    (folder / 'meminfo').write_text(f'MemTotal: 99999999 kB\nMemAvailable:   {int(free * 1e9 / 1024)} kB\n')
    (folder / 'memory.max').write_text(limit)
    (folder / 'memory.current').write_text(str(10**9))
    monkeypatch.setattr(machine, 'PROC', folder / 'meminfo')
    monkeypatch.setattr(machine, 'CGROUP', folder)


@pytest.mark.parametrize(
    ('free', 'limit', 'status', 'text'),
    [
        (20.0, 'max', 'ok', '20.0 GB'),
        (3.0, 'max', 'warn', '3.0 GB'),
        (0.5, 'max', 'fail', '0.5 GB'),
        (20.0, str(3 * 10**9), 'warn', '2.0 GB'),  # the container's limit less what is in use
    ],
)
def test_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, limit: str, status: str, text: str
) -> None:
    give(monkeypatch, 10)
    write_memory(monkeypatch, tmp_path, free, limit)
    (found,) = machine.check_memory()
    assert (found.status, found.detail.startswith(text)) == (status, True)


def test_memory_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, 'PROC', tmp_path / 'absent')
    assert next(machine.check_memory()).status == 'skip'


def test_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_memory(monkeypatch, tmp_path, 20)
    monkeypatch.setattr(machine, 'SHM', tmp_path)
    give(monkeypatch, 0.064, total=0.064)
    found = list(machine.check_memory())[-1]
    assert (found.name, found.status) == ('shared memory', 'warn')
    assert '0.06 GB' in found.detail
    assert '--shm-size 8g' in found.remedy


@pytest.mark.parametrize(
    ('seen', 'quota', 'threads', 'remedy'),
    [
        (8, 'max 100000', '', ''),
        (8, 'max 100000', '4', ''),
        (8, 'max 100000', '16', 'export OMP_NUM_THREADS=8'),
        (32, '200000 100000', '', 'export OMP_NUM_THREADS=2'),
        (32, '50000 100000', '', 'export OMP_NUM_THREADS=1'),
        (32, '200000 100000', '2', ''),
    ],
)
def test_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: int, quota: str, threads: str, remedy: str
) -> None:
    (tmp_path / 'cpu.max').write_text(quota)
    monkeypatch.setattr(machine, 'CGROUP', tmp_path)
    monkeypatch.setattr(machine, 'visible_cores', lambda: seen)
    (found,) = machine.check_cores({'OMP_NUM_THREADS': threads})
    assert (found.status, found.remedy) == ('warn' if remedy else 'ok', remedy)


def test_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'not' / 'yet'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (found,) = machine.check_writable()
    assert found.status == 'ok'
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'file').write_text('a file where a folder should be')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    (found,) = machine.check_writable()
    expected = Result(
        'writable', 'fail', f'{tmp_path / "file"}: Not a directory', 'set TORCH_HOME to a folder of your own'
    )
    assert found == expected
