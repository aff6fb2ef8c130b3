"""Two machines, one of which is killed again and again: two network namespaces with torchrun's c10d rendezvous.

``python -m tests.stress.nodes --kills 5`` needs root. The weights have to be those of a run without kills.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.engine.tiny import write_config

ROOT = Path(__file__).resolve().parents[2]
TEXT = """
custom_imports = dict(imports=['tests.engine.tiny'])
train_dataloader['dataset']['length'] = 2000
train_cfg['max_epochs'] = {epochs}
env_cfg = dict(dist_cfg=dict(timeout=20))
"""
NODES = ('10.77.0.1', '10.77.0.2')


# Two network namespaces with a cable between them.
CABLE = """
ip netns add {0}; ip netns add {1}
ip link add eth0 netns {0} type veth peer name eth0 netns {1}
ip -n {0} address add 10.77.0.1/24 dev eth0; ip -n {1} address add 10.77.0.2/24 dev eth0
for name in {0} {1}; do ip -n $name link set eth0 up; ip -n $name link set lo up; done
"""


@contextmanager
def namespaces() -> Iterator[list[str]]:
    """Yield the names of two network namespaces; all processes in them are ended."""
    names = [f'node{k}-{os.getpid()}' for k in range(2)]
    try:
        subprocess.run(['bash', '-ec', CABLE.format(*names)], check=True)
        yield names
    finally:
        for name in names:
            kill(name)
            subprocess.run(['ip', 'netns', 'delete', name], capture_output=True)


def kill(name: str) -> None:
    """End all processes of a machine at once."""
    for pid in subprocess.run(['ip', 'netns', 'pids', name], capture_output=True, text=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def start(folder: Path, name: str, address: str, work_dir: str) -> subprocess.Popen[bytes]:
    launcher = f"""--nnodes 2 --nproc-per-node 1 --max-restarts 50 --rdzv-backend c10d --rdzv-endpoint {NODES[0]}:29400
        --rdzv-conf is_host={address == NODES[0]} --local-addr {address} -m"""
    program = f'mmres2net train tiny.py --launcher pytorch --resume --work-dir {work_dir}'
    python = ['ip', 'netns', 'exec', name, sys.executable, '-m', 'torch.distributed.run']
    command = [*python, *launcher.split(), *program.split()]
    variables = {'GLOO_SOCKET_IFNAME': 'eth0', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    variables |= {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}  # else a machine that starts again cannot join
    with (folder / f'{work_dir}-{address}.log').open('ab') as log:
        return subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdout=log, stderr=log)


def checkpoints(folder: Path) -> int:
    return len(list(folder.glob('epoch_*.pth')))


def train(folder: Path, work_dir: str, kills: int, limit: float) -> dict[str, torch.Tensor]:
    """Train on two machines, kill the second one ``kills`` times, each after another checkpoint; return the weights."""
    end = time.monotonic() + limit
    with namespaces() as names:
        runs = [start(folder, name, address, work_dir) for name, address in zip(names, NODES, strict=True)]
        while any(run.poll() is None for run in runs):
            if time.monotonic() > end:
                raise TimeoutError((folder / f'{work_dir}-{NODES[0]}.log').read_text()[-3000:])
            if kills and (done := checkpoints(folder / work_dir)):
                kill(names[1])
                runs[1].wait()
                runs[1] = start(folder, names[1], NODES[1], work_dir)
                kills -= 1
                while checkpoints(folder / work_dir) == done and time.monotonic() < end and runs[0].poll() is None:
                    time.sleep(0.1)
            time.sleep(0.1)
    assert [run.returncode for run in runs] == [0, 0]
    newest = max((folder / work_dir).glob('epoch_*.pth'), key=lambda path: int(path.stem.split('_')[1]))
    return torch.load(newest, weights_only=False)['state_dict']


def compare(folder: Path, kills: int) -> None:
    """Raise an AssertionError if a run with ``kills`` ends with other weights than one without."""
    write_config(folder, TEXT.format(epochs=kills + 2))
    expected, found = train(folder, 'whole', 0, 300), train(folder, 'killed', kills, 300 + 120 * kills)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place), options.kills)
    print(f'{options.kills} of {options.kills} kills of a machine: the weights are those of the run without kills')
