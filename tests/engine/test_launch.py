"""Processes and GPUs, as the launchers' variables tell them."""

import pytest

from mmres2net.engine.launch import check_launcher, is_first_process, world_size
from mmres2net.errors import UserError


@pytest.mark.parametrize(
    ('launcher', 'size', 'rank'),
    [
        ('pytorch', 'WORLD_SIZE', 'RANK'),
        ('slurm', 'SLURM_NTASKS', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_launchers_variables(monkeypatch: pytest.MonkeyPatch, launcher: str, size: str, rank: str) -> None:
    monkeypatch.setenv(size, '4')
    monkeypatch.setenv(rank, '3')
    assert (world_size(launcher), is_first_process(launcher)) == (4, False)
    monkeypatch.setenv(rank, '0')
    assert is_first_process(launcher)
    assert (world_size('none'), is_first_process('none')) == (1, True)


def test_each_process_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    check_launcher('pytorch', 8)
    check_launcher('none', 0)
    with pytest.raises(UserError, match='8 processes on this machine, but torch sees 1 GPUs'):
        check_launcher('pytorch', 1)
