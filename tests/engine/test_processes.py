"""Whole runs in two processes on CPUs: what they compute together, and how they end together."""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.logging import MMLogger

from tests.conftest import forget_visualizers
from tests.engine.tiny import RunTiny, weights, write_config
from tests.stress import nodes
from tests.support.cli import run_cli

Start = Callable[..., dict[str, str]]
TEXT = """
default_scope = 'mmengine'
custom_imports = dict(imports=['tests.engine.tiny'])
val_evaluator = test_evaluator = dict(type='RunMean')
val_dataloader['dataset']['length'] = test_dataloader['dataset']['length'] = 3
"""


def by_torchrun(rank: int, port: int) -> dict[str, str]:
    names = {'RANK': rank, 'WORLD_SIZE': 2, 'LOCAL_RANK': rank, 'LOCAL_WORLD_SIZE': 2, 'MASTER_PORT': port}
    return {'MASTER_ADDR': 'localhost', **{name: str(value) for name, value in names.items()}}


def by_slurm(rank: int, port: int) -> dict[str, str]:
    names = {'SLURM_PROCID': rank, 'SLURM_NTASKS': 2, 'SLURM_LOCALID': rank, 'SLURM_JOB_ID': port - 20000}
    return {'SLURM_NODELIST': 'localhost', **{name: str(value) for name, value in names.items()}}


def by_mpi(rank: int, port: int) -> dict[str, str]:
    names = {'RANK': rank, 'SIZE': 2, 'LOCAL_RANK': rank, 'LOCAL_SIZE': 2}
    variables = {f'OMPI_COMM_WORLD_{name}': str(value) for name, value in names.items()}
    return {'MASTER_ADDR': 'localhost', 'MASTER_PORT': str(port), **variables}


def restarted(rank: int, port: int) -> dict[str, str]:
    return {**by_torchrun(rank, port), 'TORCHELASTIC_RESTART_COUNT': '1'}


def at_step_3(model: Any, action: Callable[[], None]) -> None:
    forward = model.forward

    def acting(self: Any, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        if self.step == 2 and mode == 'loss':
            action()
        return forward(self, inputs, data_samples, mode)

    model.forward = acting


def scenarios(rank: int, ports: list[int], folder: str) -> None:
    """Run one command after another in this process; write status, output and seconds of each."""
    os.chdir(folder)
    found: dict[str, Any] = {}

    def run(name: str, start: Start, *args: Any, options: tuple[str, ...] = ()) -> None:
        forget_visualizers()
        MMLogger._instance_dict.clear()  # runs that begin in the same second would share one
        variables, began = start(rank, ports.pop()), time.monotonic()
        for known in [known for known in os.environ if known.startswith(('MASTER', 'SLURM', 'TORCHELASTIC', 'RANK'))]:
            del os.environ[known]
        os.environ |= variables
        launcher = {by_slurm: 'slurm', by_mpi: 'mpi'}.get(start, 'pytorch')
        done = run_cli(*map(str, args), '--launcher', launcher, *(('--cfg-options', *options) if options else ()))
        found[name] = [done.status, done.out, done.err, time.monotonic() - began]
        Path(folder, f'{rank}.json').write_text(json.dumps(found))

    train = ('train', 'tiny.py', '--work-dir')
    run('train', by_torchrun, *train, 'wd')
    run('test', by_slurm, 'test', 'tiny.py', 'wd/epoch_2.pth', '--work-dir', f'wt{rank}')
    run('norms', by_slurm, *train, 'wn', options=('model.norm.type=SyncBN',))
    counts = ('optim_wrapper.accumulative_counts=3', 'train_cfg.max_epochs=3')
    run('counts', by_torchrun, *train, 'wc', options=counts)  # two epochs end between two updates
    run('again', by_torchrun, *train, 'wa', '--resume', 'wc/epoch_2.pth', options=counts)
    run('refused', by_mpi, *train, 'wd')
    run('data', by_torchrun, *train, 'wd', '--overwrite', options=('train_dataloader.dataset.broken=0',))
    run('restarted', restarted, *train, 'wd', '--overwrite', options=('train_cfg.max_epochs=3',))
    if rank == 1:  # a disk of its own
        Path('own/wd').mkdir(parents=True)
        shutil.copy('tiny.py', 'own')
        os.chdir('own')
        content = torch.load('../wd/epoch_3.pth', weights_only=False)
        content['meta']['time'] = 'another day'
        content['state_dict']['layer.weight'] += 1
        torch.save(content, 'wd/epoch_3.pth')
    run('apart', by_torchrun, *train, 'wd', '--resume', options=('train_cfg.max_epochs=4',))
    run('named', by_torchrun, *train, 'wo', '--resume', 'wd/epoch_4.pth', options=('train_cfg.max_epochs=5',))
    os.chdir(folder)
    if rank == 1:
        at_step_3(RunTiny, lambda: time.sleep(6))
    run('silent', by_torchrun, *train, 'ws', options=('env_cfg.dist_cfg.timeout=2',))
    if rank == 1:
        at_step_3(RunTiny, lambda: os._exit(0))
    run('dead', by_torchrun, *train, 'wx')


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in range(20000 + os.getpid() % 9000, 30000):
        with socket.socket() as probe:
            if probe.connect_ex(('localhost', port)):
                found.append(port)
        if len(found) == count:
            break
    return found


@pytest.fixture(scope='module')
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp('processes')
    write_config(folder, TEXT)
    mp.spawn(scenarios, (free_ports(14), str(folder)), nprocs=2)
    return folder, [json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)]


def score(text: str) -> str:
    return re.findall(r'score +([-.0-9]+)', text)[-1]


def test_two_processes_train_and_evaluate_as_one(ended: Any) -> None:
    folder, (first, second) = ended
    assert first['train'][0] == second['train'][0] == 0, first['train'][2]
    assert '2 x CPU' in first['train'][1]
    assert second['train'][1] == ''
    args = ('train', 'tiny.py', '--work-dir', 'alone', '--cfg-options', 'train_dataloader.batch_size=4')
    alone = run_cli(*args, cwd=folder)
    torch.testing.assert_close(weights(folder / 'wd/epoch_2.pth'), weights(folder / 'alone/epoch_2.pth'))
    assert score(first['train'][1]) == score(first['test'][1]) == score(alone.out)
    assert not (folder / '.dist_test').exists()


def test_a_machine_with_a_disk_of_its_own_gets_the_checkpoint_of_the_first(ended: Any) -> None:
    folder, found = ended
    assert [one[name][0] for name in ('apart', 'named') for one in found] == [0] * 4
    assert 'resumed epoch: 3' in found[0]['apart'][1]
    forget_visualizers()
    options = ('train_dataloader.batch_size=4', 'train_cfg.max_epochs=5')
    assert run_cli('train', 'tiny.py', '--work-dir', 'five', '--cfg-options', *options, cwd=folder).status == 0
    for epoch, work_dir in ((4, 'wd'), (5, 'wo')):
        name = f'epoch_{epoch}.pth'
        torch.testing.assert_close(weights(folder / work_dir / name), weights(folder / 'five' / name))


def test_gradients_that_two_processes_accumulate_are_those_of_one_and_survive_a_resume(ended: Any) -> None:
    folder, (first, _) = ended
    assert (first['counts'][0], first['again'][0]) == (0, 0)
    expected, found = weights(folder / 'wc/epoch_3.pth'), weights(folder / 'wa/epoch_3.pth')
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    options = ('optim_wrapper.accumulative_counts=3', 'train_cfg.max_epochs=3', 'train_dataloader.batch_size=4')
    assert run_cli('train', 'tiny.py', '--work-dir', 'one', '--cfg-options', *options, cwd=folder).status == 0
    torch.testing.assert_close(weights(folder / 'one/epoch_3.pth'), expected)


def test_batch_norm_of_each_process_is_evaluated_and_saved_as_that_of_the_first(ended: Any) -> None:
    folder, (first, _) = ended
    assert 'model.norm.type SyncBN -> BN' in first['norms'][1]
    args = ('test', 'tiny.py', 'wn/epoch_2.pth', '--work-dir', 'alone', '--cfg-options', 'model.norm.type=BN')
    assert score(run_cli(*args, cwd=folder).out) == score(first['norms'][1])


def test_a_restarted_run_resumes_by_itself(ended: Any) -> None:
    folder, (first, _) = ended
    assert first['restarted'][0] == 0
    assert 'resumed epoch: 2' in first['restarted'][1]
    assert (folder / 'wd/epoch_3.pth').exists()
    assert 'deleted' not in first['restarted'][1]


@pytest.mark.parametrize(('name', 'words', 'status'), [
    ('refused', 'has checkpoints of an earlier run', 2),
    ('data', 'the first sample of the train data cannot be read', 2), ('silent', 'env_cfg.dist_cfg.timeout', 1),
])  # fmt: skip
def test_an_error_of_one_process_ends_all_and_is_printed_once(ended: Any, name: str, words: str, status: int) -> None:
    _, found = ended
    assert [one[name][0] for one in found] == [status, status]
    assert sum(one[name][2].count('error: ') for one in found) == 1
    assert sum(words in one[name][2] for one in found) == 1
    assert all(one[name][3] < 12 for one in found)


def test_the_end_of_a_process_ends_the_others_with_a_sentence(ended: Any) -> None:
    _, (first, second) = ended
    assert 'dead' not in second
    assert first['dead'][0] == 1
    assert 'the connection to another process broke' in first['dead'][2]
    assert first['dead'][3] < 12


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('ip'), reason='network namespaces need root and iproute2')
def test_a_machine_that_is_killed_and_started_again_changes_no_weight(tmp_path: Path) -> None:
    nodes.compare(tmp_path, kills=1)
