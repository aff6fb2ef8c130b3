"""The doctor: checks of metadata and of the machine in made-up environments, probes in child processes, its status."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mmres2net import environment
from mmres2net.doctor import main as doctor
from mmres2net.doctor import probes
from mmres2net.doctor.main import Result
from tests.support.cli import run_cli

MAINTAINED = {distributions[0]: '1.0' for distributions in doctor.IMPORT_NAMES.values()}
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:

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


NO_MORE = dict(mmseg='note', mmpretrain='note')


@pytest.mark.parametrize(
    ('more', 'without', 'found'),
    [
        ({}, [], {}), ({}, ['onedl-mmcv', 'onedl-mmdetection'], dict(mmcv='fail', mmdet='fail')),
        ({}, ['onedl-mmpretrain'], dict(mmpretrain='note')),
        ({'mmdet': '3.3.0'}, ['onedl-mmdetection'], dict(OpenMMLab='fail')),
        ({'mmcv-lite': '2.1.0'}, [], dict(mmcv='fail', OpenMMLab='fail')),
        ({'opencv-python': '1.0'}, [], dict(cv2='warn')), ({'opencv-python': '4.9.0'}, [], dict(cv2='fail')),
        ({'mmengine': '0.10.7', 'mmcv': '2.1', 'mmdet': '3.3'}, [*MAINTAINED][1:4], dict(OpenMMLab='fail')),
        ({'mmengine': '0.10.7', 'mmcv': '2.1', 'mmdet': '3.3'}, [*MAINTAINED][1:], NO_MORE),
    ],
)  # fmt: skip
def test_libraries(install: Install, more: dict[str, str], without: list[str], found: dict[str, str]) -> None:
    install({name: version for name, version in {**MAINTAINED, **more}.items() if name not in without})
    assert statuses(doctor.check_libraries(['mmdet'])) == found


PAIR = {'mmres2net': ['torchvision'], 'torchvision': ['torch==2.11.0']}


@pytest.mark.parametrize(
    ('versions', 'requires', 'found'),
    [
        ({'a': '1.5'}, {'mmres2net': ['a>=1.4,<2']}, {}),
        ({'a': '2.0'}, {'mmres2net': ['a>=1.4,<2']}, {'a': 'fail'}),
        ({}, {'mmres2net': ['a>=1.4']}, {'a': 'fail'}),
        ({'onedl-mmcv': '1.5'}, {'mmres2net': ['onedl-mmcv'], 'onedl-mmcv': ['b>=3']}, {'b': 'warn'}),
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
def test_requirements(install, versions, requires, found) -> None:
    install({'mmres2net': '1.0', **versions}, requires)
    assert statuses(doctor.check_requirements()) == found


FACTS = dict(available_memory=64 * 10**9, free_disk=64 * 10**9, visible_cores=8, granted_cores=8.0)


@pytest.mark.parametrize(
    ('changes', 'threads', 'found'),
    [
        (dict(available_memory=None), '', {}), (dict(available_memory=2 * 10**9), '', {'memory': 'warn'}),
        (dict(free_disk=10**9), '', {'disk': 'warn'}), (dict(granted_cores=2.0), '', {'cores': 'warn'}),
        (dict(granted_cores=2.0), '2', {}), ({}, '9', {'cores': 'warn'}),
    ],
)  # fmt: skip
def test_machine(monkeypatch: pytest.MonkeyPatch, changes: dict, threads: str, found: dict[str, str]) -> None:
    for name, value in {**FACTS, **changes}.items():
        monkeypatch.setattr(environment, name, lambda *_, value=value: value)
    monkeypatch.setenv('OMP_NUM_THREADS', threads)
    assert statuses(doctor.check_machine()) == found


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(*names: str, time_limit: float = 60) -> dict[str, Result]:
    return {result.name: result for result in doctor.run_probes(names, time_limit)}


def test_a_module_that_crashes_python_does_not_hide_the_others(broken: Path) -> None:
    (broken / 'cv2.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    found = run('numpy', 'cv2', 'pycocotools.mask')
    assert [result.status for result in found.values()] == ['ok', 'fail', 'ok']
    assert '-11' in found['cv2'].detail
    (broken / 'cv2.py').write_text('import time; time.sleep(60)')
    assert run('cv2', time_limit=1)['cv2'].status == 'fail'


def test_a_failure_explains_those_that_follow(broken: Path) -> None:
    (broken / 'torch.py').write_text('raise ImportError("libcudart.so: cannot open shared object file")')
    found = run('torch', 'torchvision', 'mmengine.runner', 'gpu')
    assert [result.status for result in found.values()] == ['fail', 'skip', 'skip', 'skip']
    assert 'libcudart.so' in found['torch'].detail
    assert found['torch'].remedy


def test_wrong_operators_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = pytest.importorskip('mmcv.ops')
    assert 'right on cpu' in probes.operators()
    right = ops.nms
    monkeypatch.setattr(ops, 'nms', lambda boxes, scores, iou_threshold: right(boxes, scores, iou_threshold=0.9))
    with pytest.raises(ValueError, match='nms'):
        probes.operators()
    monkeypatch.setattr(ops, 'nms', right)
    monkeypatch.setattr(ops, 'roi_align', lambda *args: args[0][..., :1, :1])
    with pytest.raises(ValueError, match='roi_align'):
        probes.operators()


CPU, CUDA = 'torch is built for CUDA None', 'torch is built for CUDA 13.0'


@pytest.mark.parametrize(
    ('gpu', 'operators', 'required', 'driver', 'visible', 'found'),
    [
        (f'none; {CPU}', 'compiled in mmcv', ['cuda', 'compiled-ops'], None, '0', {'cuda': 'fail'}),
        (f'none; {CUDA}', 'compiled in mmcv', ['cuda', 'compiled-ops'], None, '0', {}),
        (f'none; {CUDA}', '', ['gpu'], None, '0', {'gpu': 'fail'}),
        (f'none; {CUDA}', 'compiled in mmcv (CUDA not available); x', ['cuda'], None, '0', {'cuda': 'fail'}),
        (f'none; {CPU}', '', [], '570.86', '0', {'gpu': 'warn'}),
        (f'none; {CPU}', '', [], '570.86', '', {}),
        (f'H100; {CUDA}', '', ['gpu', 'cuda'], '570.86', '0', {}),
        (f'H100; {CUDA}', 'provided by mmres2net', ['compiled-ops'], '570.86', '0', {'compiled-ops': 'fail'}),
    ],
)
def test_what_is_required(monkeypatch, gpu, operators, required, driver, visible, found) -> None:
    monkeypatch.setattr(environment, 'nvidia_driver', lambda: driver)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    results = doctor.check_required({'gpu': gpu, 'operators': operators}, required)
    assert {result.name: result.status for result in results} == found


@pytest.mark.parametrize(('status', 'code'), [('ok', 0), ('warn', 0), ('skip', 0), ('fail', 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    monkeypatch.setattr(doctor, 'run_probes', lambda names: [Result('first', 'ok', ''), Result('x', status, '', 'y')])
    for check in ('check_libraries', 'check_requirements', 'check_machine'):
        monkeypatch.setattr(doctor, check, lambda *_: [])
    done = run_cli('doctor')
    assert (done.status, done.out.split()[0]) == (code, status)  # the worst stands first
    assert run_cli('doctor', '--require', 'nope').status == 2
