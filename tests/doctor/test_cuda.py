"""Cards, drivers and architectures, from made-up facts: the tests need no card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmres2net.doctor import cuda
from mmres2net.doctor.child import Answer
from mmres2net.doctor.result import Result

ARCHS = ['sm_75', 'sm_80', 'sm_86', 'sm_90', 'compute_90']


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide this machine's driver; a test may write one."""
    monkeypatch.setattr(cuda, 'DRIVER', tmp_path / 'version')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    return tmp_path / 'version'


def torch(*capabilities: tuple[int, int], version: str | None = '13.0', error: str = '') -> Answer:
    gpus = [{'name': 'Card', 'capability': list(pair), 'error': error} for pair in capabilities]
    return Answer({'version': '2.11.0', 'cuda': version, 'archs': ARCHS, 'gpus': gpus, 'trouble': 'driver too old'})


@pytest.mark.parametrize(
    ('archs', 'capability', 'runs'),
    [
        (['sm_80'], (8, 0), True),
        (['sm_80'], (8, 6), True),  # machine code runs on later minor versions of its major one
        (['sm_86'], (8, 0), False),
        (['sm_80'], (9, 0), False),
        (['compute_80'], (9, 0), True),
        (['compute_90'], (8, 9), False),
        (['sm_90a'], (9, 0), True),
        (['sm_90a'], (9, 1), False),
        (['sm_100'], (10, 0), True),
        (['sm_100', 'sm_120'], (12, 1), True),
        ([], (8, 0), False),
    ],
)
def test_which_code_runs_where(archs: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert cuda.runs_on(archs, capability) is runs


def card(answer: Answer) -> Result:
    return list(cuda.check_torch({'torch': answer}))[-1]


def test_a_card_that_torch_has_code_for() -> None:
    assert card(torch((9, 0))) == Result('GPU', 'ok', 'Card, compute capability 9.0, runs torch 2.11.0')


def test_a_card_that_is_too_old_for_torch() -> None:
    found = card(torch((6, 1)))
    assert found.status == 'fail'
    assert found.detail == 'Card, compute capability 6.1: torch has code for sm_75 sm_80 sm_86 sm_90 compute_90 only'
    assert 'built for 6.1' in found.remedy


def test_a_card_that_fails() -> None:
    found = card(torch((9, 0), error='CUDA error: out of memory'))
    assert (found.status, 'out of memory' in found.detail, 'nvidia-smi' in found.remedy) == ('fail', True, True)


@pytest.mark.parametrize(
    ('version', 'visible', 'status', 'word'),
    [
        ('13.0', None, 'fail', 'driver too old'),
        (None, None, 'warn', 'built for the CPU alone'),
        ('13.0', '', 'note', 'hides the cards'),
        ('13.0', '-1', 'note', 'hides the cards'),
        ('13.0', '0', 'fail', 'torch sees no card'),
    ],
)
def test_a_driver_without_a_card(
    no_driver: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    visible: str | None,
    status: str,
    word: str,
) -> None:
    no_driver.write_text('NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n')
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    found = card(torch(version=version))
    assert (found.status, word in found.detail) == (status, True)
    assert 'the driver is 535.104.05' in found.detail


def test_no_driver_is_a_note() -> None:
    assert card(torch()).status == 'note'


def test_a_torch_that_failed_says_no_more() -> None:
    (found,) = cuda.check_torch({'torch': Answer(error='ImportError: libc10.so')})
    assert (found.name, found.status) == ('torch', 'fail')


def ops(
    built: str, *capabilities: tuple[int, int], run: Answer | None = None, required: str = '', **kw: Any
) -> list[Result]:
    answers = {
        'torch': torch(*capabilities, **kw),
        'mmcv_ops': Answer({'cuda': built, 'compiler': 'GCC 12'}),
        'mmcv_cuda': run or Answer({'gpus': len(capabilities)}),
    }
    return list(cuda.check_mmcv(answers, frozenset({required})))


def test_cpu_ops_without_a_card_are_no_finding() -> None:
    assert ops('not available') == []


@pytest.mark.parametrize(('capabilities', 'required'), [([(8, 6)], ''), ([], 'cuda')])
def test_cpu_ops_where_cuda_is_needed(capabilities: list[tuple[int, int]], required: str) -> None:
    (found,) = ops('not available', *capabilities, required=required)
    assert (found.name, found.status) == ('mmcv CUDA ops', 'fail')
    assert 'nvcc of CUDA 13.0: FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.' in found.remedy
    assert 'make setup CUDA=1' in found.remedy


def test_ops_of_another_cuda() -> None:
    (found,) = ops('12.8', (9, 0))
    assert (found.status, found.detail) == ('fail', 'compiled for CUDA 12.8, torch is for CUDA 13.0')
    (found,) = ops('13.1')
    assert (found.status, 'not run' in found.detail) == ('ok', True)


def test_ops_that_run_on_the_card() -> None:
    (found,) = ops('13.0', (9, 0), (9, 0))
    assert (found.status, found.detail) == ('ok', 'NMS and RoIAlign are right on 2 card(s); CUDA 13.0')


def test_ops_compiled_for_other_cards() -> None:
    error = 'CUDA error: no kernel image is available for execution on the device'
    (found,) = ops('13.0', (12, 0), (8, 6), run=Answer(error=error))
    assert found.status == 'fail'
    assert 'not for compute capability 12.0;8.6' in found.detail
    assert 'TORCH_CUDA_ARCH_LIST="12.0;8.6"' in found.remedy


def test_ops_that_are_wrong_on_the_card() -> None:
    (found,) = ops('13.0', (9, 0), run=Answer(error='ValueError: mmcv.ops.nms on cuda:0 gave [0], right is [1, 2]'))
    assert (found.status, found.detail.startswith('ValueError')) == ('fail', True)
