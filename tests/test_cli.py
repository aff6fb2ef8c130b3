"""The command line as a user meets it: help at once, errors on stderr, an exit status; all scripts in tools/."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmres2net import flags
from mmres2net.cli import VERBS
from mmres2net.errors import UserError
from tests.support.cli import run_cli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ('train', 'test', 'check_data', 'convert_data', 'prepare_data', 'convert_weights', 'export', 'predict',
           'serve', 'cam', 'compare', 'complexity', 'sweep', 'doctor', 'make_demo_data')  # fmt: skip
LIGHT = [name for name in VERBS if name in flags.VERBS]


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def test_verbs_and_configs_are_listed() -> None:
    done = run_cli('--help')
    assert [verb for verb in VERBS if f'  {verb}' not in done.out] == []
    assert (done.status, run_cli().status) == (0, 2)
    done = run_cli('chek-data')
    assert (done.status, 'check-data' in done.err.splitlines()[0]) == (2, True)
    assert run_cli('check_data').err == run_cli('check-data').err
    assert run_cli('check_data', '--help').status == 0
    assert 'faster_rcnn_r2n50.py' in run_cli('configs', '--list').out.split()
    assert Path(run_cli('configs').out.strip()).is_dir()


def test_help_and_errors_in_flags_import_nothing_heavy() -> None:
    code = f"""
import sys
from contextlib import suppress
from mmres2net.cli import main
for verb in {LIGHT}:
    for flag in ('--help', '--no-such-flag'):
        with suppress(SystemExit):
            main([verb, flag])
main(['--help'])
heavy = {{'torch', 'numpy', 'mmengine', 'mmcv', 'PIL', 'yaml'}} & set(sys.modules)
sys.exit(', '.join(heavy) or 0)
"""
    done = run(sys.executable, '-c', code)
    assert done.returncode == 0, done.stderr
    assert {'train', 'test', 'check-data', 'convert-data', 'prepare-data', 'export', 'cam', 'sweep'} <= set(LIGHT)


def test_choices_that_the_flags_restate() -> None:
    from mmres2net.cam.core import METHODS
    from mmres2net.data.layout import PARTS as SPLITS
    from mmres2net.data.prepare.job import DATASETS
    from mmres2net.export.formats import WRITERS
    from mmres2net.predict.checkpoint import PRECISIONS
    from mmres2net.weights.convert import TARGETS
    from mmres2net.weights.reading import FLAG

    assert (set(flags.FORMATS), set(flags.DATA_SETS)) == (set(WRITERS), set(DATASETS))
    assert (set(flags.CAM_METHODS), flags.WEIGHT_FORMS) == (set(METHODS), TARGETS)
    assert (flags.SPLITS, flags.UNSAFE) == (SPLITS, FLAG)
    assert set(flags.PRECISIONS) == set(PRECISIONS)


def test_mistake_is_one_error_without_traceback(tmp_path: Path) -> None:
    done = run_cli('train', 'faster_rcnn_r2n50.py', cwd=tmp_path)
    assert (done.status, done.err.count('error: '), 'Traceback' in done.err) == (2, 1, False)
    assert all(text in done.err for text in ('data/coco/annotations/instances_train2017.json', '--data DIR'))
    assert not (tmp_path / 'work_dirs').exists()


def test_traceback_is_there_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMRES2NET_TRACEBACK', '1')
    with pytest.raises(UserError):
        run_cli('train', 'absent.py')


def test_container_hands_every_verb_to_the_command(tmp_path: Path) -> None:
    (tmp_path / 'mmres2net').write_text('#!/bin/sh\necho "mmres2net $*"\n')
    (tmp_path / 'mmres2net').chmod(0o755)
    for verb in (*VERBS, '--help'):  # also `test`, which is a program of every system
        done = run('sh', ROOT / 'docker/entrypoint.sh', verb, 'x', PATH=f'{tmp_path}:{os.environ["PATH"]}')
        assert done.stdout.strip() == f'mmres2net {verb} x'


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_run_by_their_path_as_the_readme_has_them(script: str) -> None:
    path = ROOT / 'tools' / f'{script}.py'
    assert os.access(path, os.X_OK)
    done = run(path, '--help', PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    assert (done.returncode, done.stdout[:6]) == (0, 'usage:')


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGUSR1', 75)])
def test_signals_before_the_command_can_take_them(name: str, status: int) -> None:
    code = f"""
import os, runpy, signal, sys, mmres2net.errors
class Sends:
    def find_spec(self, module, *_):
        if module == 'mmres2net.cli':
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Sends())
runpy.run_module('mmres2net', run_name='__main__')
"""
    done = run(sys.executable, '-c', code)
    assert (done.returncode, done.stderr) == (status, f'\nstopped by {name}\n')


def test_a_reader_that_ends_ends_the_command_in_silence() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, '-m', 'mmres2net', 'configs', '--list']
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b'')
