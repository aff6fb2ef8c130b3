"""The runner: contenders in turns, outputs first, and one that fails, differs or hangs leaves the others alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import runner
from benchmarks.__main__ import main
from benchmarks.case import Case, Contender, DifferenceError, difference
from benchmarks.report import BEGIN, END, interval, measured, write_page
from benchmarks.runner import Limits, measure
from tests.benchmarks.worker import work

CASE = Case('inference', (32, 32), threads=1)


def result_of(*names: str, turns: int = 3, case: Case = CASE) -> dict:
    contenders = {name: Contender(name, ('inference',), None, 'base' if name != 'base' else None) for name in names}
    return measure(case, contenders, Limits(turns, 0.001, 5.0), allow_load=True, work=work)


@pytest.fixture(scope='module')
def result() -> dict:
    return result_of('base', 'slow', 'wrong', 'missing', 'failing', 'ending')


def test_turns_are_measured_and_faults_are_told(result: dict) -> None:
    rows = {row['name']: row for row in result['contenders']}
    assert [rows[name]['seconds'] for name in ('base', 'slow')] == [[0.001] * 3, [0.002] * 3]
    assert (rows['slow']['difference'], rows['slow']['same_as']) == (0, 'base')
    reasons = {'missing': 'no such package', 'failing': 'ValueError: broken', 'ending': 'status 3'}
    for name, reason in {**reasons, 'wrong': 'differs by 1.0e-01'}.items():
        assert reason in rows[name]['absent']
    assert [row['name'] for row in measured(result)] == ['base', 'slow']
    assert measured(result)[1]['ratio'] == (2, 2, 2)
    assert (result['machine']['cores'] > 0, result['allow_load']) == (True, True)


def test_contender_that_hangs_is_ended() -> None:
    rows = {row['name']: row for row in result_of('base', 'hanging')['contenders']}
    assert '5 s' in rows['hanging']['absent']
    assert len(rows['base']['seconds']) == 3


def test_outputs_on_a_gpu_are_compared_with_a_cpu() -> None:
    on_gpu = result_of('base', 'slow', 'wrong', 'failing', case=replace(CASE, device='cuda', precision='bf16'))
    rows = {row['name']: row for row in on_gpu['contenders']}
    assert list(rows) == ['base', 'slow', 'wrong', 'failing']
    assert {row['same_as'] for row in rows.values()} == {'base on the CPU'}
    assert (rows['base']['seconds'], rows['slow']['calls']) == ([0.001] * 3, 1)
    assert (rows['wrong']['absent'], rows['failing']['absent']) == (
        'differs by 1.0e-01 from base on the CPU', 'ValueError: broken'
    )  # fmt: skip


def test_busy_machine_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(os, 'getloadavg', lambda: (100.0, 1.0, 1.0))
    out = tmp_path / 'a.json'
    assert main(['run', 'inference', '--out', str(out)]) == 2
    assert '--allow-load' in capsys.readouterr().err
    assert (runner.check_load(allow=True), out.exists()) == (100.0, False)
    with pytest.raises(SystemExit):  # flags cannot be abbreviated
        main(['run', 'inference', '--allow'])


@pytest.mark.parametrize('flags', [
    '--turns 0', '--size 8x8', '--only none', '--out /proc/x/a.json', '--threads -1', '--precision tf32',
    '--device cuda',
])  # fmt: skip
def test_mistakes_are_found_before_anything_starts(flags: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert main(['run', 'inference', '--allow-load', *flags.split()]) == 2
    assert flags.split()[-1] in capsys.readouterr().err


def test_arrays_are_compared_by_their_largest_value() -> None:
    assert difference({'a': np.array([4.0, 1.0])}, {'a': np.array([4.0, 1.2])}) == pytest.approx(0.05)
    for got in ({'b': np.zeros(2)}, {'a': np.zeros(3)}, {'a': np.array([np.nan, 0])}):
        with pytest.raises(DifferenceError):
            difference(got, {'a': np.array([4.0, 1.0])})


def test_detections_are_compared_in_any_order_and_one_may_be_missing() -> None:
    rng = np.random.default_rng(0)
    corner, masks = rng.random((100, 2)) * 200, np.zeros((100, 20, 20), bool)
    masks[:, 5:15, 5:15] = True
    wanted = {'boxes': np.hstack([corner, corner + 20]), 'scores': rng.random(100), 'labels': np.arange(100) % 3}
    wanted['masks'] = masks
    order = rng.permutation(100)[:99]
    got = {name: value[order] for name, value in wanted.items()}
    assert difference(dict(got, scores=got['scores'] + 1e-4), wanted) == pytest.approx(1e-4)
    changes = dict(boxes=got['boxes'] * 0.9, scores=got['scores'] * 0.9, labels=(got['labels'] + 1) % 3)
    for wrong in (*({name: v} for name, v in changes.items()), {'masks': ~got['masks']}):
        with pytest.raises(DifferenceError):
            difference(got | wrong, wanted)
    with pytest.raises(DifferenceError):
        difference({name: value[:90] for name, value in wanted.items()}, wanted)


def test_interval_of_paired_turns() -> None:
    ratio, low, high = interval([2.0, 4.0, 6.0, 2.2], [1.0, 2.0, 3.0, 1.0])
    assert ratio == pytest.approx(3.1 / 1.5)
    assert 2.0 <= low <= ratio <= high <= 2.2
    assert interval([1.0, 9.0, 1.0, 9.0], [1.0, 1.0, 1.0, 1.0])[1:] == (1.0, 9.0)


def test_page_and_plot_come_from_the_results(result: dict, tmp_path: Path) -> None:
    file, page = tmp_path / 'quick.json', tmp_path / 'page.md'
    file.write_text(json.dumps(result))
    page.write_text(f'# Page\n\n{BEGIN}\nold\n{END}\n\nend\n')
    write_page([file], page)
    first = page.read_text()
    assert [text in first for text in ('| slow ', '2.00 to 2.00', '--allow-load', 'old')] == [True, True, True, False]
    assert (first[:6], first[-4:]) == ('# Page', 'end\n')
    assert (tmp_path / 'benchmarks_quick.png').read_bytes()[:4] == b'\x89PNG'
    write_page([file], page)
    assert page.read_text() == first


@pytest.mark.slow
def test_whole_runs(tmp_path: Path) -> None:
    """Every contender of every suite is built, agrees with what it must equal, and is timed or says what is missing."""
    for suite, size in (('inference', '64x64'), ('training', '64x64'), ('step', '96x128'), ('image', '96x128')):
        out = tmp_path / f'{suite}.json'
        flags = ['--size', size, '--turns', '1', '--seconds', '0.01', '--allow-load', '--out', str(out)]
        assert main(['run', suite, *flags]) == 0
        absent = [row['absent'] for row in json.loads(out.read_text())['contenders'] if 'absent' in row]
        assert all('not installed' in reason for reason in absent), absent
