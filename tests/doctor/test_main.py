"""Probes in child processes, requirements, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmres2net.doctor import checks, probes
from mmres2net.doctor import main as doctor
from mmres2net.doctor.checks import Result
from tests.support.cli import run_cli


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the search path, for modules that break."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(*names: str, time_limit: float = 60) -> dict[str, Result]:
    return {result.name: result for result in doctor.run_probes(names, time_limit)}


def test_a_module_that_crashes_python_does_not_hide_the_others(broken: Path) -> None:
    (broken / 'cv2.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    found = run('numpy', 'cv2', 'pycocotools.mask')
    assert [result.status for result in found.values()] == ['ok', 'fail', 'ok']
    assert '-11' in found['cv2'].detail


def test_a_module_that_hangs(broken: Path) -> None:
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


def test_a_name_that_another_class_took(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.registry import MODELS as ROOT

    probes.registry()
    monkeypatch.setitem(ROOT.module_dict, 'Res2Net', object)
    with pytest.raises(ValueError, match='Res2Net'):
        probes.registry()


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
def test_requirements(monkeypatch, gpu, operators, required, driver, visible, found) -> None:
    monkeypatch.setattr(doctor, 'nvidia_driver', lambda: driver)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    results = doctor.check_required({'gpu': gpu, 'operators': operators}, required)
    assert {result.name: result.status for result in results} == found


@pytest.mark.parametrize(('status', 'code'), [('ok', 0), ('warn', 0), ('skip', 0), ('fail', 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, code: int) -> None:
    monkeypatch.setattr(doctor, 'run_probes', lambda names: [Result('first', 'ok', ''), Result('x', status, '', 'y')])
    for check in ('check_python', 'check_libraries', 'check_requirements', 'check_machine'):
        monkeypatch.setattr(checks, check, lambda *_: [])
    done = run_cli('doctor', '--json', tmp_path / 'report.json')
    assert done.status == code
    report = json.loads((tmp_path / 'report.json').read_text())
    assert {entry['name']: entry['status'] for entry in report} == {'first': 'ok', 'x': status}
    assert done.out.split()[0] == ('ok' if status == 'ok' else status)  # the worst stands first


def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, 'all_results', lambda required: [Result('x', 'ok', '')])
    assert run_cli('doctor', '--require', 'nope').status == 2
    assert run_cli('doctor', '--json', tmp_path).status == 2
