"""The checks of metadata and of the machine, in made-up environments."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mmres2net import environment
from mmres2net.doctor import checks
from mmres2net.doctor.checks import Result

MAINTAINED = {distributions[0]: '1.0' for distributions in checks.IMPORT_NAMES.values()}
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that replaces the installed distributions by others, given by version and requirements."""

    def run(versions: dict[str, str], requires: dict[str, list[str]] | None = None) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(importlib.metadata, 'requires', lambda name: (requires or {}).get(name))

    return run


def statuses(results: Iterable[Result]) -> dict[str, str]:
    results = list(results)
    assert all(result.remedy for result in results if result.status in ('fail', 'warn'))
    return {result.name: result.status for result in results}


@pytest.mark.parametrize(
    ('version', 'status'), [((3, 9, 18), 'fail'), ((3, 10, 0), 'ok'), ((3, 13, 2), 'ok'), ((3, 14, 0), 'warn')]
)
def test_python(version: tuple[int, ...], status: str) -> None:
    assert statuses(checks.check_python(version)) == {'Python': status}


NO_MORE = dict(mmseg='note', mmpretrain='note')


@pytest.mark.parametrize(
    ('more', 'without', 'found'),
    [
        ({}, [], {}),
        ({}, ['onedl-mmcv', 'onedl-mmdetection'], dict(mmcv='fail', mmdet='fail')),
        ({}, ['onedl-mmpretrain'], dict(mmpretrain='note')),
        ({'mmdet': '3.3.0'}, ['onedl-mmdetection'], dict(OpenMMLab='fail')),
        ({'mmcv-lite': '2.1.0'}, [], dict(mmcv='fail', OpenMMLab='fail')),
        ({'opencv-python': '1.0'}, [], dict(cv2='warn')),
        ({'opencv-python': '4.9.0'}, [], dict(cv2='fail')),
        ({'mmengine': '0.10.7', 'mmcv': '2.1', 'mmdet': '3.3'}, [*MAINTAINED][1:4], dict(OpenMMLab='fail')),
        ({'mmengine': '0.10.7', 'mmcv': '2.1', 'mmdet': '3.3'}, [*MAINTAINED][1:], NO_MORE),
    ],
)  # fmt: skip
def test_libraries(install: Install, more: dict[str, str], without: list[str], found: dict[str, str]) -> None:
    install({name: version for name, version in {**MAINTAINED, **more}.items() if name not in without})
    assert statuses(checks.check_libraries(['mmdet'])) == found


def test_files_that_are_gone(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(MAINTAINED)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'mmcv' else found(name))
    assert statuses(checks.check_libraries()) == {'mmcv': 'fail'}


PAIR = {'mmres2net': ['torchvision'], 'torchvision': ['torch==2.11.0']}


@pytest.mark.parametrize(
    ('versions', 'requires', 'found'),
    [
        ({'a': '1.5'}, {'mmres2net': ['a>=1.4,<2']}, {}),
        ({'a': '2.0'}, {'mmres2net': ['a>=1.4,<2']}, {'a': 'fail'}),
        ({}, {'mmres2net': ['a>=1.4']}, {'a': 'fail'}),
        ({'a': '1.5'}, {'mmres2net': ['a'], 'a': ['b>=3']}, {'b': 'warn'}),
        ({'a': '1', 'b': '1', 'c': '1'}, {'mmres2net': ['a'], 'a': ['b'], 'b': ['a', 'c>1']}, {'c': 'warn'}),
        ({}, {'mmres2net': ['a>=1; extra == "det"', 'b; python_version < "3"']}, {}),
        ({'a': '0.9'}, {'mmres2net': ['a>=1; extra == "det"']}, {'a': 'fail'}),
        ({'torchvision': '0.26.0', 'torch': '2.11.0+cpu'}, PAIR, {}),
        ({'torchvision': '0.26.0', 'torch': '2.10.0'}, PAIR, {'torch': 'fail'}),
        (
            {'opencv-python-headless': '4.14', 'mmcv': '2.1'},
            {'mmres2net': ['opencv-python>=4.5', 'onedl-mmcv>=2.3']},
            {},
        ),
    ],
)
def test_requirements(
    install: Install, versions: dict[str, str], requires: dict[str, list[str]], found: dict[str, str]
) -> None:
    install({'mmres2net': '1.0', **versions}, requires)
    assert statuses(checks.check_requirements()) == found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 8 cores without any findings."""
    facts = dict(available_memory=64 * 10**9, free_disk=64 * 10**9, visible_cores=8, granted_cores=8.0)
    for name, value in facts.items():
        monkeypatch.setattr(environment, name, lambda *_, value=value: value)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ('name', 'value', 'threads', 'found'),
    [
        ('available_memory', None, '', {}),
        ('available_memory', 2 * 10**9, '', {'memory': 'warn'}),
        ('free_disk', 10**9, '', {'disk': 'warn'}),
        ('granted_cores', 2.0, '', {'cores': 'warn'}),
        ('granted_cores', 2.0, '2', {}),
        ('granted_cores', 8.0, '9', {'cores': 'warn'}),
    ],
)
def test_machine(machine: pytest.MonkeyPatch, name: str, value: float | None, threads: str, found: dict) -> None:
    machine.setattr(environment, name, lambda *_: value)
    machine.setenv('OMP_NUM_THREADS', threads)
    assert statuses(checks.check_machine()) == found


def test_a_folder_that_cannot_be_written(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def temporary_file(dir: Path) -> io.BytesIO:
        if Path(dir) == tmp_path:
            raise OSError(errno.EROFS, 'Read-only file system')
        return io.BytesIO()

    machine.setenv('XDG_CACHE_HOME', str(tmp_path / 'not there yet'))
    machine.setattr(tempfile, 'TemporaryFile', temporary_file)
    (result,) = checks.check_machine()
    assert (result.status, 'XDG_CACHE_HOME' in result.remedy) == ('fail', True)
