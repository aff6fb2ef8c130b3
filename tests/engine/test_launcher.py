"""Processes and GPUs, as the variables of the launchers describe them."""

import os

import pytest

from mmres2net.engine.launcher import (
    Group,
    _set_variables,
    check_launcher,
    is_first_here,
    is_first_process,
    local_size,
    world_size,
)
from mmres2net.errors import UserError

STARTED = {
    'pytorch': {
        'RANK': '3', 'WORLD_SIZE': '4', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2', 'MASTER_ADDR': 'a',
        'MASTER_PORT': '1',
    },
    'slurm': {'SLURM_PROCID': '3', 'SLURM_NTASKS': '4', 'SLURM_NODELIST': 'n[1-2]', 'SLURM_TASKS_PER_NODE': '2(x2)'},
    'mpi': {
        'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
        'OMPI_COMM_WORLD_LOCAL_SIZE': '2', 'MASTER_ADDR': 'a',
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {name for variables in STARTED.values() for name in variables} | {'SLURM_NTASKS_PER_NODE'}:
        monkeypatch.delenv(name, raising=False)


def start(monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    for name, value in STARTED[launcher].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize('launcher', STARTED)
def test_variables_of_each_launcher(monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    start(monkeypatch, launcher)
    assert (world_size('none'), is_first_process('none'), local_size('none')) == (1, True, 1)
    check_launcher('none', gpus=0)
    assert (world_size(launcher), is_first_process(launcher), local_size(launcher)) == (4, False, 2)
    check_launcher(launcher, gpus=2)
    check_launcher(launcher, gpus=0)  # on CPUs
    with pytest.raises(UserError, match='2 processes'):
        check_launcher(launcher, gpus=1)
    rank = next(iter(STARTED[launcher]))
    monkeypatch.setenv(rank, '0')
    assert is_first_process(launcher)
    monkeypatch.setenv(rank, 'first')
    with pytest.raises(UserError, match=f"{rank}='first'"):
        check_launcher(launcher, gpus=2)
    monkeypatch.delenv(rank)  # this process was not started by it
    with pytest.raises(UserError, match=rank):
        check_launcher(launcher, gpus=8)


@pytest.mark.parametrize(('text', 'most'), [('4', 4), ('2(x3),1', 2), ('1,8(x2)', 8)])
def test_tasks_of_slurm_on_the_fullest_node(monkeypatch: pytest.MonkeyPatch, text: str, most: int) -> None:
    monkeypatch.setenv('SLURM_TASKS_PER_NODE', text)
    assert local_size('slurm') == most
    monkeypatch.setenv('SLURM_NTASKS_PER_NODE', '3')
    assert local_size('slurm') == 3


@pytest.mark.parametrize(('nodes', 'first'), [('n[02-04,7],m1', 'n02'), ('a,b', 'a'), ('r[1-2]n[3-4]', 'r1n3')])
def test_variables_of_torch_in_a_job_of_slurm(monkeypatch: pytest.MonkeyPatch, nodes: str, first: str) -> None:
    for name, value in {**STARTED['slurm'], 'SLURM_NODELIST': nodes, 'SLURM_JOB_ID': '1234567'}.items():
        monkeypatch.setenv(name, value)
    for name in ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '')  # restored at the end
        monkeypatch.delenv(name)
    _set_variables('slurm')
    names = ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK')
    assert [os.environ[name] for name in names] == [first, '24567', '3', '4', '1']
    assert not is_first_here('slurm')


@pytest.mark.parametrize('port', ['99999', 'text', '-1'])
def test_ports_that_are_none(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    start(monkeypatch, 'pytorch')
    monkeypatch.setenv('MASTER_PORT', port)
    with pytest.raises(UserError, match=port):
        Group('pytorch')
