"""The processes of a run: the variables of the job launchers, how the processes meet, and what they tell each other.

torchrun, Slurm and MPI start them alike, over NCCL where torch sees GPUs and over gloo on CPUs. Before the process
group is there, they talk through a store of the first process, without a timeout: one of them may check data for hours.
"""

import json
import os
import pickle
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import gather_object, get_world_size, is_main_process
from mmengine.evaluator import metric
from torch import distributed as dist

from mmres2net.errors import Interrupted, RunError, UserError, reason_of, report
from mmres2net.files import atomic_path

T = TypeVar('T')
ADDRESS, PORT = 'MASTER_ADDR', 'MASTER_PORT'

# Rank, number of processes, rank and number of processes on this machine; then what else has to be set.
LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', ADDRESS, PORT),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NTASKS_PER_NODE', 'SLURM_NODELIST'),
    'mpi': (*(f'OMPI_COMM_WORLD_{name}' for name in ('RANK', 'SIZE', 'LOCAL_RANK', 'LOCAL_SIZE')), ADDRESS),
}
RANK, SIZE, LOCAL_RANK, LOCAL_SIZE = range(4)
STARTERS = {'pytorch': 'torchrun --nproc-per-node N', 'slurm': 'srun --ntasks-per-node N', 'mpi': 'mpirun -np N'}
RESTARTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
BLOCK = 1 << 22  # bytes; torch's store refuses values of over 8 MiB
START, LEAVE, POLL = 600.0, 3.0, 0.1  # seconds: to meet at the start, to wait for each other at the end, to ask again


def _number(launcher: str, which: int, default: int = 0) -> int:
    name = LAUNCHERS[launcher][which] if launcher in LAUNCHERS else ''
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f'--launcher {launcher}: {name}={text!r} is not a whole number')
    return int(text)


def world_size(launcher: str) -> int:
    """Return the number of processes of the run; 1 without a launcher."""
    return _number(launcher, SIZE, 1)


def is_first_process(launcher: str) -> bool:
    """Whether this process is the one that decides and reports."""
    return _number(launcher, RANK) == 0


def _local_rank(launcher: str) -> int:
    return _number(launcher, LOCAL_RANK, _number(launcher, RANK) % local_size(launcher))


def is_first_here(launcher: str) -> bool:
    """Whether this process is the first one on its machine, which checks and writes files there."""
    return _local_rank(launcher) == 0


def local_size(launcher: str) -> int:
    """Return the number of processes on this machine, 1 where the launcher does not say."""
    if launcher == 'slurm' and 'SLURM_NTASKS_PER_NODE' not in os.environ:
        # Such as 2(x3),1: the number of tasks on each node, with repeats in brackets.
        counts = re.findall(r'(\d+)(?:\(x\d+\))?', os.environ.get('SLURM_TASKS_PER_NODE', ''))
        return max(map(int, counts), default=1)
    return _number(launcher, LOCAL_SIZE, 1)


def is_restarted(launcher: str) -> bool:
    """Whether the launcher has started this run before: torchrun after a failure, Slurm after a requeue."""
    return launcher != 'none' and any(os.environ.get(name, '0') not in ('', '0') for name in RESTARTS)


def check_launcher(launcher: str, gpus: int) -> None:
    """Check that the launcher set its variables, and that each process has one of the ``gpus``: else a UserError."""
    if launcher == 'none':
        return
    needed = [name for i, name in enumerate(LAUNCHERS[launcher]) if i != LOCAL_SIZE and name != 'SLURM_LOCALID']
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise UserError(
            f'--launcher {launcher}: {", ".join(missing)} not set, so this process was not started by it; start with '
            f'{STARTERS[launcher]} ..., or one process without --launcher'
        )
    if _number(launcher, RANK) >= world_size(launcher):
        raise UserError(f'--launcher {launcher}: the rank of this process is not below the number of processes')
    processes = local_size(launcher)
    if 0 < gpus < processes:
        raise UserError(
            f'--launcher {launcher}: {processes} processes on this machine, but torch sees {gpus} GPUs, and each needs '
            'one; start fewer, make all GPUs visible to each of them, or use CPUs with CUDA_VISIBLE_DEVICES=""'
        )


def _set_variables(launcher: str) -> None:
    """Set the variables of torch, by which MMEngine and torch know the processes."""
    values = {'RANK': _number(launcher, RANK), 'WORLD_SIZE': world_size(launcher), 'LOCAL_RANK': _local_rank(launcher)}
    os.environ |= {name: str(value) for name, value in values.items()}
    if launcher == 'slurm':  # n[01-03,7],m4: the first host; two jobs on one machine need two ports
        first = re.sub(r'\[(\d+)[^\]]*\]', r'\1', os.environ['SLURM_NODELIST']).split(',')[0]
        os.environ.setdefault(ADDRESS, first)
        job = re.sub(r'\D', '', os.environ.get('SLURM_JOB_ID', '')) or '9500'
        os.environ.setdefault(PORT, str(20000 + int(job) % 10000))
    os.environ.setdefault(PORT, '29500')


class Group:
    """The processes of a run from their start to their end, which meet at a store of the first one."""

    current: 'Group | None' = None

    def __init__(self, launcher: str) -> None:
        _set_variables(launcher)
        self.rank, self.size, self._count = int(os.environ['RANK']), int(os.environ['WORLD_SIZE']), 0
        try:
            self.store = self._connect(os.environ[ADDRESS], int(os.environ[PORT]))
        except (RuntimeError, ValueError) as error:
            place = f'{os.environ[ADDRESS]}:{os.environ[PORT]} ({ADDRESS}, {PORT})'
            raise UserError(f'process {self.rank}: the processes cannot meet at {place}: {reason_of(error)}') from error

    def _connect(self, host: str, port: int) -> dist.TCPStore:
        if not 0 <= port < 1 << 16:
            raise ValueError('a port is a number from 0 to 65535')
        first = self.rank == 0
        if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
            return _tcp_store(host, port, first)
        # torchrun keeps its store, and what is in it, when it restarts the processes: ours is a new one each time.
        agent, end = _tcp_store(host, port, False), time.monotonic() + START
        while True:
            try:
                store = _tcp_store(host, 0 if first else int(agent.get('mmres2net')), first, 2)
                agent.set('mmres2net', str(store.port))
                return store
            except RuntimeError:  # the port of a process that was ended
                if time.monotonic() > end:
                    raise
            time.sleep(POLL)

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not ready():
            if self.store.check(['failed']):
                _, message, status = json.loads(self.store.get('failed'))
                raise (UserError if status == UserError.status else RunError)(message)
            time.sleep(POLL)

    def share(self, make: Callable[[], T]) -> T:
        """Return in every process what ``make`` returns in the first one."""
        self._count += 1
        key = f'shared {self._count}'
        if self.rank == 0:
            self.store.set(key, pickle.dumps(make()))  # type: ignore[arg-type]
        self._wait(lambda: self.store.check([key]))
        return pickle.loads(self.store.get(key))

    def meet(self) -> None:
        """Wait until all processes are here."""
        self._count += 1
        self.store.add(f'here {self._count}', 1)
        self._wait(lambda: self.store.add(f'here {self._count}', 0) == self.size)

    def copy(self, path: Path, target: Path, wanted: bool) -> None:
        """Copy a file of the first process to ``target`` in processes where it is ``wanted``; all have to call this."""
        self._count += 1
        key = f'wanted {self._count}'
        self.store.add(key, int(wanted))
        self.meet()
        if not self.store.add(key, 0):
            return
        with ExitStack() as stack:
            source = stack.enter_context(path.open('rb')) if self.rank == 0 else None
            out = stack.enter_context(stack.enter_context(atomic_path(target)).open('wb')) if wanted else None
            block = b'more'
            while block:
                block = self.share(lambda: source.read(BLOCK) if source else b'')
                if out is not None:
                    out.write(block)
                self.meet()
                if self.rank == 0:
                    self.store.delete_key(f'shared {self._count - 1}')

    def leave(self, error: BaseException | None) -> None:
        """Leave, perhaps after an ``error``: the first one of all processes is printed, the others follow from it."""
        if isinstance(error, UserError | Interrupted | OSError):
            mine = json.dumps([self.rank, str(error), getattr(error, 'status', 1)])
            if self.store.compare_set('failed', '', mine).decode() == mine:
                report(error)
            error.reported = True  # type: ignore[union-attr]
        # After success, all have to have received what they were sent; the first one goes last, as it holds the store.
        ended, end = self.store.add('ended', 1), time.monotonic() + LEAVE
        awaited = 2 * self.size - 1 if self.rank == 0 else self.size if error is None else 0
        while ended < awaited and time.monotonic() < end:
            time.sleep(POLL)
            ended = self.store.add('ended', 0)
        self.store.add('ended', 1)


def _tcp_store(host: str, port: int, is_master: bool, seconds: float = START) -> dist.TCPStore:
    limit = timedelta(seconds=seconds)
    return dist.TCPStore(host, port, None, is_master, timeout=limit, wait_for_workers=False)


@contextmanager
def processes(launcher: str) -> Iterator[None]:
    """Within the block the processes of a run know each other; the error of one ends all, and is printed once."""
    check_launcher(launcher, torch.cuda.device_count())
    if launcher == 'none':
        yield
        return
    Group.current = Group(launcher)
    try:
        yield
    finally:
        failure = sys.exc_info()[1]
        with suppress(RuntimeError, Interrupted):  # the first process has ended, or torchrun ends this one
            Group.current.leave(failure)
        if dist.is_initialized() and (failure is None or dist.get_backend() == 'gloo'):  # nccl waits for the others
            dist.destroy_process_group()
        Group.current = None


def from_first_process(make: Callable[[], T]) -> T:
    """Return in every process what ``make`` returns in the first one; it must be pickled."""
    return Group.current.share(make) if Group.current else make()


def wait_for_others() -> None:
    """Wait, without limit, until all processes are here; a UserError of another one ends this one too."""
    if Group.current:
        Group.current.meet()


def join(cfg: Config) -> None:
    """Wait for all processes and start torch's process group; for gloo the config gets a wrapper of the model."""
    group = Group.current
    if group is None or dist.is_initialized():
        return
    options, gpus = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}, torch.cuda.device_count()
    backend = options.get('backend', 'nccl') if gpus else 'gloo'
    first = group.share(lambda: backend)
    if backend != first:
        place = f'process {group.rank} on {socket.gethostname()}'
        raise UserError(f'{place} uses {backend}, since torch sees {gpus} GPUs there, but the first one uses {first}')
    group.meet()
    if gpus:
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    else:
        given, unused = cfg.get('model_wrapper_cfg') or {}, cfg.get('find_unused_parameters', False)
        wrapper = {'broadcast_buffers': False, 'find_unused_parameters': unused, **given, 'device_ids': None}
        cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', **wrapper}
    limit = timedelta(seconds=options['timeout']) if options.get('timeout') else None
    dist.init_process_group(backend, None, limit, group.size, group.rank, group.store)
    metric.collect_results = gather_results


def gather_results(results: Sequence[Any], size: int, *_: Any, **__: Any) -> list[Any] | None:
    """Return the results of all processes, ``size`` of them, in the order of the samples; None in all but the first.

    MMEngine's ``collect_results`` needs a shared disk. A UserError says that the sampler does not divide the samples.
    """
    # Objects go over gloo: of any size, they would not fit in the memory of a GPU.
    parts = gather_object(list(results), group=_cpu_group()) if get_world_size() > 1 else [list(results)]
    if not is_main_process():
        return None
    end = object()
    found = [one for row in zip_longest(*parts, fillvalue=end) for one in row if one is not end]
    if len(parts) > 1 and len(found) >= size + len(parts):
        raise UserError(
            f'{len(found)} images were evaluated of {size}: the sampler does not divide them between the processes; '
            "use sampler=dict(type='DefaultSampler', shuffle=False)"
        )
    return found[:size]


@cache
def _cpu_group() -> Any:
    return None if dist.get_backend() == 'gloo' else dist.new_group(backend='gloo')
