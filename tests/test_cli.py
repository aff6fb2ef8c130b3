"""The command line as a user meets it: in a process of its own, with errors on stderr and an exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmres2net.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]


def run(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python on ``args`` with the checkout importable."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd or ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_help_lists_every_verb() -> None:
    done = run('-m', 'mmres2net', '--help')
    assert done.returncode == 0
    assert [verb for verb in VERBS if f'  {verb}' not in done.stdout] == []


def test_unknown_verb() -> None:
    done = run('-m', 'mmres2net', 'trian')
    assert done.returncode == 2
    assert "unknown verb 'trian'" in done.stderr


def test_configs_are_listed() -> None:
    done = run('-m', 'mmres2net', 'configs', '--list')
    assert 'faster_rcnn_r2n50.py' in done.stdout.split()
    assert Path(run('-m', 'mmres2net', 'configs').stdout.strip()).is_dir()


@pytest.mark.parametrize(('script', 'flags'), [('train', '--from-scratch'), ('test', '--draw')])
def test_scripts_have_the_documented_flags(script: str, flags: str) -> None:
    done = run(f'tools/{script}.py', '--help')
    assert done.returncode == 0
    for flag in (flags, '--data', '--work-dir', '--cfg-options', '--launcher'):
        assert flag in done.stdout


def test_mistake_is_one_error_without_traceback(tmp_path: Path) -> None:
    done = run(str(ROOT / 'tools/train.py'), 'faster_rcnn_r2n50.py', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count('error: ') == 1
    assert 'Traceback' not in done.stderr
    assert 'data/coco/annotations/instances_train2017.json' in done.stderr
    assert '--data DIR' in done.stderr
    assert not (tmp_path / 'work_dirs').exists()


def test_traceback_is_there_on_demand(tmp_path: Path) -> None:
    done = run('-m', 'mmres2net', 'train', 'absent.py', cwd=tmp_path, MMRES2NET_TRACEBACK='1')
    assert done.returncode == 1
    assert 'Traceback' in done.stderr


@pytest.mark.parametrize('verb', [*VERBS, '--help'])
def test_container_hands_every_verb_to_the_command(verb: str, tmp_path: Path) -> None:
    """Also `test`, which is a program of every system."""
    (tmp_path / 'mmres2net').write_text('#!/bin/sh\necho "mmres2net $*"\n')
    (tmp_path / 'mmres2net').chmod(0o755)
    done = subprocess.run(
        ['sh', str(ROOT / 'docker/entrypoint.sh'), verb, 'x'],
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == f'mmres2net {verb} x'


@pytest.mark.parametrize(
    'script',
    [
        'train',
        'test',
        'check_data',
        'prepare_data',
        'convert_weights',
        'export',
        'predict',
        'cam',
        'complexity',
        'sweep',
        'doctor',
        'make_demo_data',
    ],
)
def test_scripts_run_by_their_path_as_the_readme_has_them(script: str) -> None:
    path = ROOT / 'tools' / f'{script}.py'
    assert os.access(path, os.X_OK)
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([str(path), '--help'], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert done.stdout.startswith('usage:')
