"""Contenders in processes of their own: the order of turns, deaths, absences, checks before the timing."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from mmres2net.bench.check import check, compare
from mmres2net.bench.common import Case, chosen, measure, parse_size
from mmres2net.bench.measure import MeasurementError
from mmres2net.bench.turns import Contender, once, outputs_of, team_of
from mmres2net.errors import UserError

TOYS = 'tests.bench.toys'


@pytest.fixture(autouse=True)
def _toys_are_found(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def log(tmp_path):
    return tmp_path / 'log'


def toy(name, log, *, ours=True, against='a', same_as=None, **options):
    options = {'name': name, 'log': str(log), **options}
    return Contender(name, f'{TOYS}:Toy', options, against, same_as, ours=ours)


def other(name, job, *, ours=False):
    return Contender(name, f'{TOYS}:{job}', ours=ours, against='a')


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_turns_go_round(log):
    with team_of([toy(name, log) for name in 'abc'], threads=3) as team:
        runs = team.time(repeats=2, turn=1e-9)
        facts = team.facts()
    lines = log.read_text().split('\n')
    assert lines[:3] == ['a built', 'b built', 'c built']
    # One call each to warm up, then two rounds
    assert lines[3:-1] == [f'{name} run' for name in 'abcabcabc']
    assert {name: len(each) for name, each in runs.items()} == {'a': 2, 'b': 2, 'c': 2}
    assert all(run['calls'] == 1 and run['seconds'] > 0 for each in runs.values() for run in each)
    assert {each['threads'] for each in facts.values()} == {'3'}
    pids = {each['pid'] for each in facts.values()}
    assert len(pids | {os.getpid()}) == 4
    assert not any(alive(pid) for pid in pids)


def test_short_calls_are_repeated_in_a_turn(log):
    with team_of([toy('a', log)], threads=1) as team:
        (run,) = team.time(repeats=1, turn=0.05)['a']
    assert 1 < run['calls'] <= 1000
    assert log.read_text().count('run') == 1 + run['calls']


def test_a_death_in_a_turn_is_one_error(log):
    with pytest.raises(MeasurementError) as caught, team_of([toy('a', log), toy('b', log, die='run')], 1) as team:
        team.time(repeats=1, turn=0.1)
    assert str(caught.value) == 'b ended with 3 when asked to time\nits last words:\nmy last words'


@pytest.mark.parametrize(
    ('job', 'reason'),
    [
        ('absent', 'there is none here'),
        ('not_installed', 'a_package_that_nobody_has is not installed'),
        ('broken', 'ValueError: built wrong'),
        ('dies', 'b was ended by signal 9 when asked to build'),
        ('nothing', "AttributeError: module 'tests.bench.toys' has no attribute 'nothing'"),
    ],
)
def test_a_peer_that_cannot_be_built_is_left_out(log, job, reason):
    with team_of([toy('a', log), other('b', job)], 1) as team:
        assert team.absent == {'b': reason}
        assert list(team.time(1, 1e-9)) == ['a']


def test_our_own_failure_ends_the_benchmark(log):
    team = team_of([other('b', 'broken', ours=True)], 1)
    with pytest.raises(MeasurementError, match=r'b failed to build: ValueError: built wrong\n(.|\n)*Traceback'), team:
        pass
    with team_of([other('b', 'absent', ours=True)], 1) as team:
        assert team.absent == {'b': 'there is none here'}


def test_memory_is_the_growth_of_the_process_alone():
    """Not what this process holds, nor what the call took before the watch began."""
    block = np.ones(200 * 2**17)
    with team_of([Contender('a', f'{TOYS}:Hoarder', {'mib': 64})], 1) as team:
        (run,) = team.time(1, 0.1)['a']
    assert block.nbytes == 200 * 2**20
    assert run['peak_mib'] == pytest.approx(64, abs=16)
    assert run['seconds'] / run['calls'] < 0.2  # what comes before a call is not timed


def test_once():
    assert once(f'{TOYS}:answer', {'one': [1, None]}, 1) == {'one': [1, None]}
    with pytest.raises(MeasurementError, match='broken failed to once: ValueError: built wrong'):
        once(f'{TOYS}:broken', {}, 1)


def test_the_worker_speaks_lines_of_json():
    requests = [
        {'do': 'facts'},
        {'do': 'once', 'function': 'tests.bench.toys:answer', 'options': {'x': 1}},
        {'do': 'no such thing'},
    ]
    text = ''.join(json.dumps(request) + '\n' for request in requests)
    command = [sys.executable, '-m', 'mmres2net.bench.worker']
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    before, answer, unknown = map(json.loads, done.stdout.splitlines())
    assert before['error'].startswith('AttributeError')
    assert answer == {'ok': {'x': 1}}
    assert unknown['error'].startswith('AttributeError')


def test_the_worker_is_without_torch():
    code = "import sys, mmres2net.bench.worker, mmres2net.bench.runtimes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'


# Checks


def reference(log, value=1.0, shape=(2, 3)):
    return Contender('truth', f'{TOYS}:Toy', {'name': 'truth', 'log': str(log), 'value': value, 'shape': shape})


def flags(**changed):
    return Namespace(**{'only': None, 'repeats': 1, 'turn': 1e-9, 'threads': 1, **changed})


def test_a_mismatch_is_refused_before_anything_is_timed(log, tmp_path):
    contenders = [toy('a', log, same_as='truth'), toy('b', log, same_as='truth', value=1.001)]
    case = Case('toys', contenders, {'truth': reference(log)}, {'feature': 1e-4})
    message = 'b does not give what truth gives: feature 0 differs by 0.001 of its largest value, allowed are 0.0001; '
    with pytest.raises(MeasurementError, match=message):
        measure(case, flags(), tmp_path)
    assert 'run' not in log.read_text()
    assert measure(Case('toys', contenders, case.references, {'feature': 1e-2}), flags(), tmp_path).runs.keys() == {
        'a',
        'b',
    }


def test_what_came_out(log, tmp_path):
    contenders = [toy('a', log, same_as='truth'), toy('b', log, same_as='a', value=1 + 1e-6), other('c', 'absent')]
    ceiling = [toy('top', log)]
    case = Case('toys', contenders, {'truth': reference(log)}, {'feature': 1e-4})
    found = measure(case, flags(repeats=3), tmp_path, ceiling)
    assert found.differences['a'] == {'feature 0': 0.0}
    assert found.differences['b'] == {'feature 0': pytest.approx(1e-6)}
    assert found.absent == {'c': 'there is none here'}
    assert found.ceiling == {'top': pytest.approx(10 / found.summaries['top'].seconds)}
    assert found.summaries['a'].ratio == 1
    assert found.facts['truth']['operations'] == 10
    assert json.loads(json.dumps(found.json()))['runs']['a'][2]['calls'] == 1
    assert [path.name for path in tmp_path.glob('own*')] == []


def test_without_its_counterpart_a_contender_is_left_out(log, tmp_path):
    with team_of([other('c', 'absent'), toy('b', log, same_as='c')], 1) as team:
        check(team, {}, {'feature': 1.0}, tmp_path)
        assert team.absent['b'] == 'nothing to check it with: there is none here'
        assert team.present == []
    with pytest.raises(MeasurementError, match='toys: nothing could be measured: c: there is none here'):
        measure(Case('toys', [other('c', 'absent')]), flags(), tmp_path)


def test_outputs_of_a_process_that_ends(log, tmp_path):
    facts = outputs_of(reference(log, 7.0), tmp_path / 'seven.npz', 2)
    assert not alive(facts['pid'])
    assert np.load(tmp_path / 'seven.npz')['feature 0'].tolist() == [[7.0] * 3] * 2


def test_differences(tmp_path):
    def difference(ours, theirs):
        np.savez(tmp_path / 'a.npz', **ours)
        np.savez(tmp_path / 'b.npz', **theirs)
        return compare(tmp_path / 'a.npz', tmp_path / 'b.npz')

    inf = float('inf')
    assert difference({'x': [1.0, -8.0]}, {'x': [1.0, -10.0]}) == {'x': 0.2}
    assert difference({'x': [0.5]}, {'x': [0.0]}) == {'x': 0.5}
    assert difference({'x': [1.0]}, {'x': [1.0, 1.0]}) == {'x': inf}
    assert difference({'x': [np.nan]}, {'x': [1.0]}) == {'x': inf}
    assert difference({'x': [1.0]}, {'x': [np.nan]}) == {'x': inf}
    assert difference({'x': [1.0]}, {'y': [1.0]}) == {'x': inf, 'y': inf}
    assert difference({'x': []}, {'x': []}) == {'x': 0.0}


# Flags


def test_only_takes_along_what_is_compared_with(log):
    contenders = [toy('a', log, against=None), toy('b', log), toy('c', log, same_as='b'), toy('d', log)]
    assert [one.name for one in chosen(contenders, None)] == ['a', 'b', 'c', 'd']
    assert [one.name for one in chosen(contenders, ['c'])] == ['a', 'b', 'c']
    with pytest.raises(UserError, match='--only x: in no name of a; b; c; d'):
        chosen(contenders, ['x'])


def test_sizes():
    assert parse_size('800x1216', '--sizes') == (800, 1216)
    for text, message in (('800', 'give height and width'), ('axb', 'as in 800x1216'), ('800x16', '32 pixels or more')):
        with pytest.raises(UserError, match=f'--sizes {text}: .*{message}'):
            parse_size(text, '--sizes')
