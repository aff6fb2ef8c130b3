"""``python -m tests.stress kills|signals|disk``: stop and starve runs, compare their ends; status 1: a loss."""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.runner.loops import ValLoop

from tests.stress import runs as small
from tests.stress.runs import CONFIGS, StressNet, differences, empty, kill_group, outcome, slow_disk, wait

PHASES = ('data check', 'first step', 'training', 'checkpoint', 'evaluation')
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGUSR2: 75}


def kills(
    runs: small.Runs, count: int, draw: random.Random, prepare: Callable[[], None]
) -> tuple[Counter[str], list[str]]:
    """Kill runs at random moments, resume each until it ends by itself, and compare; returns counts and faults."""
    begin = time.monotonic()
    assert runs.finish(empty(runs.folder / 'whole'), prepare=prepare) == 0
    length, expected = time.monotonic() - begin, outcome(runs.folder / 'whole')
    tried: Counter[str] = Counter()
    faults: list[str] = []
    while tried['kills'] < count:
        work_dir = empty(runs.folder / 'killed')
        while True:
            pid = runs.start(work_dir, prepare=prepare)
            end = time.monotonic() + draw.uniform(0, length)
            while time.monotonic() < end and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.005)
            kill_group(pid) if draw.random() < 0.5 else os.kill(pid, signal.SIGKILL)  # with its workers, or alone
            status = wait(pid)
            if status >= 0:
                break
            tried['kills'] += 1
            tried['in writing'] += bool(list(work_dir.glob('.*.part')))
        found = differences(outcome(work_dir), expected) if status == 0 else [f'exit status {status}']
        tried['trials'] += 1
        tried['equal bit for bit'] += not found
        faults += [f'{work_dir}: {line}' for line in found[:5]]
        if found:
            work_dir.rename(runs.folder / f'fault_{tried["trials"]}')
    return tried, faults


def prepare_phase(pipe: int, phase: str) -> None:
    """Have this process tell when it gets into a phase, and stay there until the signal has come."""
    steps, told = iter(range(10**6)), list[str]()

    def before(owner: Any, name: str, tells: Callable[[], bool] = lambda: True) -> None:
        call = getattr(owner, name)

        def telling(*args: Any, **kwargs: Any) -> Any:
            if not told and tells():
                told.append(phase)
                os.write(pipe, phase.encode())
                time.sleep(0.2)
            return call(*args, **kwargs)

        setattr(owner, name, telling)

    if phase == 'data check':
        from mmres2net.engine import run

        before(run, 'check_before_training')
    elif phase == 'checkpoint':
        before(os, 'fsync')
    elif phase == 'evaluation':
        before(ValLoop, 'run_iter')
    else:
        at = 0 if phase == 'first step' else 9
        before(StressNet, 'train_step', lambda: next(steps) == at)


def signals(
    runs: small.Runs, count: int, draw: random.Random, phases: Sequence[str] = PHASES
) -> tuple[Counter[str], list[str]]:
    """Send signals in each phase, resume, and compare; returns counts and faults."""
    assert runs.finish(empty(runs.folder / 'whole')) == 0
    expected, tried = outcome(runs.folder / 'whole'), Counter[str]()
    faults: list[str] = []
    for phase in phases:
        for _ in range(count):
            number, work_dir = draw.choice(SIGNALS), empty(runs.folder / 'stopped')
            end, pipe = os.pipe()
            pid = runs.start(work_dir, prepare=partial(prepare_phase, pipe, phase), checks=True)
            os.close(pipe)
            os.read(end, 20)
            kill_group(pid, number) if draw.random() < 0.5 else os.kill(pid, number)
            status = wait(pid)
            os.close(end)
            log = Path(f'{work_dir}.log').read_text()
            found = [f'exit status {status}'] * (status != STATUS[number]) + ['traceback'] * ('Traceback' in log)
            try:
                os.killpg(pid, 0)
                found.append('a process is left')
            except ProcessLookupError:
                pass
            again = runs.finish(work_dir)
            found += differences(outcome(work_dir), expected) if again == 0 else [f'resumed: exit status {again}']
            tried[phase] += 1
            tried['equal bit for bit'] += not found
            faults += [f'{phase}, {number.name}: {line}' for line in found[:5]]
    return tried, faults


def disk(runs: small.Runs, count: int, draw: random.Random) -> tuple[Counter[str], list[str]]:
    """Fill a small file system during training, make room, resume, and compare; needs the right to mount."""
    assert runs.finish(empty(runs.folder / 'whole')) == 0
    expected, tried = outcome(runs.folder / 'whole'), Counter[str]()
    faults: list[str] = []
    place = runs.folder / 'small_disk'
    place.mkdir(exist_ok=True)
    for _ in range(count):
        size = draw.randint(80, 500)  # KiB
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', str(place)], check=True)
        try:
            status = runs.finish(place / 'run', log=runs.folder / 'disk.log')
            log = (runs.folder / 'disk.log').read_text()
            subprocess.run(['mount', '-o', 'remount,size=64m', str(place)], check=True)
            again = runs.finish(place / 'run', log=runs.folder / 'disk.log')
            found = [f'exit status {status}'] * (status not in (0, 1, 2)) + ['traceback'] * ('Traceback' in log)
            found += differences(outcome(place / 'run'), expected) if again == 0 else [f'resumed: exit status {again}']
        finally:
            subprocess.run(['umount', str(place)], check=True)
        (runs.folder / 'disk.log').unlink()
        tried['checkpoints not written'] += log.count('cannot be written')
        tried[f'exit status {status}'] += 1
        tried['equal bit for bit'] += not found
        faults += [f'{size} KiB: {line}' for line in found[:5]]
    return tried, faults


def run() -> int:
    """Try what the command line asks for."""
    parser = argparse.ArgumentParser(prog='python -m tests.stress', description=__doc__)
    parser.add_argument('what', choices=['kills', 'signals', 'disk'])
    parser.add_argument('--config', choices=list(CONFIGS), default='numbers')
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--count', type=int, default=50, help='kills; signals in each phase; full disks')
    parser.add_argument('--slow', type=float, default=0.2, help='seconds that writing a checkpoint takes in kills')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', type=Path, required=True, help='for the runs')
    args = parser.parse_args()
    runs, draw = small.Runs(args.folder.resolve(), args.config, args.workers), random.Random(args.seed)
    if args.what == 'kills':
        tried, faults = kills(runs, args.count, draw, partial(slow_disk, args.slow))
    else:
        tried, faults = {'signals': signals, 'disk': disk}[args.what](runs, args.count, draw)
    print(f'{args.what}, {args.config}, {args.workers} workers:', ', '.join(f'{k} {v}' for k, v in tried.items()))
    print('\n'.join(faults) or 'nothing was lost')
    return int(bool(faults))


if __name__ == '__main__':
    sys.exit(run())
