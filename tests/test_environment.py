"""Facts of the environment, read from files of a made-up system."""

from pathlib import Path

import pytest

from mmres2net import environment

GIB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores with 16 GiB available, without cgroups; files are added below ``proc`` and ``cgroup``."""
    monkeypatch.setattr(environment, 'PROC', tmp_path / 'proc')
    monkeypatch.setattr(environment, 'CGROUP', tmp_path / 'cgroup')
    monkeypatch.setattr(environment, 'visible_cores', lambda: 8)
    write(tmp_path / 'proc/meminfo', f'MemTotal: 99 kB\nMemAvailable:   {16 * GIB // 1024} kB\n')
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_that_says_nothing(system: Path) -> None:
    (system / 'proc/meminfo').unlink()
    assert (environment.granted_cores(), environment.available_memory()) == (8, None)
    assert environment.nvidia_driver() is None


@pytest.mark.parametrize(
    ('files', 'cores', 'gib'),
    [
        ({}, 8, 16),
        ({'cpu.max': 'max 100000', 'memory.max': 'max'}, 8, 16),
        ({'cpu.max': '150000 100000', 'memory.max': f'{4 * GIB}', 'memory.current': f'{GIB}'}, 1.5, 3),
        ({'memory.max': f'{GIB}', 'memory.current': f'{GIB}', 'memory.stat': f'a 1\ninactive_file {GIB // 2}'}, 8, 0.5),
        ({'memory.max': f'{GIB}', 'memory.current': f'{2 * GIB}'}, 8, 0),
        ({'cpu.max': '400000 100000', 'job/step/cpu.max': '300000 100000', 'job/cpu.max': '200000 100000'}, 2, 16),
        ({'job/memory.max': f'{2 * GIB}', 'job/memory.current': '0', 'job/step/memory.max': 'max'}, 8, 2),
    ],
)
def test_limits_of_a_container(system: Path, files: dict[str, str], cores: float, gib: float) -> None:
    write(system / 'proc/self/cgroup', '0::/job/step\n' if any('job' in name for name in files) else '0::/\n')
    for name, text in files.items():
        write(system / 'cgroup' / name, text)
    assert environment.granted_cores() == cores
    assert environment.available_memory() == gib * GIB


def test_distributions_disk_and_driver(system: Path, tmp_path: Path) -> None:
    assert environment.installed_of(('pytest', 'no-such-distribution')) == {'pytest': pytest.__version__}
    assert environment.free_disk(tmp_path / 'a/b/c') == pytest.approx(environment.free_disk(tmp_path), rel=0.1)
    line = 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n'
    write(system / 'proc/driver/nvidia/version', line)
    assert environment.nvidia_driver() == '570.86.15'


@pytest.mark.parametrize(('flags', 'bfloat16'), [('flags : fma avx512_bf16', True), ('Features : bf16', True),
                                                 ('flags : avx512f', False), ('', False)])  # fmt: skip
def test_processors_that_compute_in_bfloat16(system: Path, flags: str, bfloat16: bool) -> None:
    write(system / 'proc/cpuinfo', f'model name : bf16\n{flags}\n')
    assert environment.computes_bfloat16() is bfloat16
