"""The processes of a run, as the variables of a job launcher describe them, before any of them meet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmengine.dist import broadcast_object_list, init_dist, is_distributed

from mmres2net.errors import UserError

T = TypeVar('T')
RANK, SIZE, LOCAL_SIZE = 0, 1, 2
# Rank, number of processes, and processes on this machine; then what else MMEngine reads to start with this launcher.
VARIABLES: dict[str, tuple[str, str, str]] = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NTASKS_PER_NODE'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE'),
}
NEEDED = {
    'pytorch': ('LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_NODELIST',),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'MASTER_ADDR'),
}
STARTERS = {
    'pytorch': 'torchrun --nproc-per-node GPUS',
    'slurm': 'srun --ntasks-per-node GPUS',
    'mpi': 'mpirun -np GPUS',
}


def world_size(launcher: str) -> int:
    """Return the number of processes of the run; 1 without a launcher."""
    return _number(launcher, SIZE, 1)


def is_first_process(launcher: str) -> bool:
    """Whether this process is the one that checks and reports."""
    return _number(launcher, RANK, 0) == 0


def local_size(launcher: str) -> int:
    """Return the number of processes on this machine, 1 where the launcher does not say."""
    if launcher == 'slurm' and 'SLURM_NTASKS_PER_NODE' not in os.environ:
        # Such as 2(x3),1: the number of tasks on each node, with repeats in brackets.
        counts = re.findall(r'(\d+)(?:\(x\d+\))?', os.environ.get('SLURM_TASKS_PER_NODE', ''))
        return max(map(int, counts), default=1)
    return _number(launcher, LOCAL_SIZE, 1)


def check_launcher(launcher: str, gpus: int) -> None:
    """Check that the launcher has set its variables, and that each process on this machine has a GPU of its own.

    Args:
        launcher: The value of ``--launcher``.
        gpus: The number of GPUs that torch sees.

    Raises:
        UserError: A variable is missing or no number, or there are fewer GPUs than processes.
    """
    if launcher == 'none':
        return
    missing = [name for name in (*VARIABLES[launcher][:2], *NEEDED[launcher]) if not os.environ.get(name)]
    if missing:
        raise UserError(
            f'--launcher {launcher}: {", ".join(missing)} not set, so this process was not started by it; start with '
            f'{STARTERS[launcher]} ..., or one process without --launcher'
        )
    if not is_first_process(launcher) and world_size(launcher) < 2:
        raise UserError(f'--launcher {launcher}: the rank of this process is not under the number of processes')
    processes = local_size(launcher)
    if gpus < processes:
        raise UserError(
            f'--launcher {launcher}: {processes} processes on this machine, but torch sees {gpus} GPUs, and each needs '
            'one; start fewer processes, make all GPUs visible to each of them, or start one process without --launcher'
        )


def _number(launcher: str, which: int, default: int) -> int:
    name = VARIABLES[launcher][which] if launcher in VARIABLES else ''
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f'--launcher {launcher}: {name}={text!r} is not a whole number')
    return int(text)


def from_first_process(launcher: str, dist_cfg: Mapping[str, Any], make: Callable[[], T]) -> T:
    """Return in every process what ``make`` returns in the first one, or raise its UserError; it must be pickled.

    The processes meet as ``env_cfg.dist_cfg`` of a config says.
    """
    if world_size(launcher) == 1:
        return make()
    if not is_distributed():
        init_dist(launcher, **{'backend': 'nccl', **dist_cfg})
    result: list[Any] = [None]
    if is_first_process(launcher):
        try:
            result = [make()]
        except UserError as error:
            result = [error]
    broadcast_object_list(result)
    if isinstance(result[0], UserError):
        raise result[0]
    return result[0]
