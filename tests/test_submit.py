"""Jobs of a cluster: what is submitted, and a job on this machine that is preempted."""

import os
import signal
import time
from pathlib import Path

import pytest

from mmres2net.submit import Task, submit
from tests.engine.tiny import write_config
from tests.support.cli import run_cli

pytest.importorskip('submitit')
LOCAL = ['--cluster', 'local', '--gpus-per-node', '0', '--tasks-per-node', '2']


def test_the_flags_of_the_verb_stand_among_those_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Task] = []
    monkeypatch.setattr('submitit.AutoExecutor.submit', lambda executor, task: given.append(task))
    submit(['train', *LOCAL, 'a.py', '--hours', '2', '--cfg-options', 'x=1', 'y=2', '--nodes', '1', '--ema'])
    rest = ['a.py', '--cfg-options', 'x=1', 'y=2', '--ema']
    assert given[0].command[2:] == ['mmres2net', 'train', *rest, '--launcher', 'pytorch']


@pytest.mark.parametrize('flags', ['', '--partition p', '--nodes 2 --cluster local', '--nods 2', '--nodes 0'])
def test_what_cannot_be_submitted_is_refused(tmp_path: Path, flags: str) -> None:
    verb = ['train', 'a.py'] if flags else ['sweep']
    done = run_cli('submit', *verb, *flags.split(), cwd=tmp_path)
    assert done.status == 2
    assert 'error: ' in done.err


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(Path(__file__).resolve().parents[1]))
    imports = "custom_imports = dict(imports=['tests.engine.tiny'])"
    write_config(tmp_path, f"{imports}\ntrain_dataloader['dataset']['length'] = 4000\ntrain_cfg['max_epochs'] = 4\n")
    job = submit(['train', 'tiny.py', '--work-dir', 'wd', '--overwrite', *LOCAL])
    end = time.monotonic() + 120
    while not Path('wd/epoch_1.pth').exists() and time.monotonic() < end:
        time.sleep(0.1)
    children = Path(f'/proc/{job._process.pid}/task/{job._process.pid}/children').read_text().split()
    first = next(pid for pid in children if b'GLOBALID=0' in Path(f'/proc/{pid}/environ').read_bytes())
    os.kill(int(first), signal.SIGUSR2)
    job.results()
    text = job.paths.stdout.read_text()
    assert Path('wd/epoch_4.pth').exists()
    assert 'resumed epoch: ' in text
    assert text.count('epoch 1/4  step 1/') <= 1  # not trained again
