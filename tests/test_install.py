"""The set-up as `make setup` runs it; programs that record their calls stand in for uv, pip and the doctor."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALL = ROOT / 'tools' / 'install.py'
VERSIONS = dict(re.findall(r'^([\w.-]+)==(\S+)', (ROOT / 'requirements.txt').read_text(), re.MULTILINE))
# Answers from files of the environment; writes every call to the log, with the constraints that it was given.
PROGRAM = """#!/bin/sh
cd {folder}
name=$(basename "$0")
case "$name $*" in
    *--version*) echo "uv $(cat uv-version)"; exit ;;
    *'config list'*) cat pip-settings; exit ;;
    *freeze*) cat packages; exit ;;
    'python -c import sys'*) cat torch-facts; exit ;;
    'python -c'*) cat compiled; exit ;;
esac
echo "begin $name $* INDEX=$UV_DEFAULT_INDEX CUDA=$FORCE_CUDA JOBS=$MAX_JOBS COMPILE=$UV_COMPILE_BYTECODE" >> log
case "$name $*" in 'uv pip install'*) cp .setup/constraints.txt given ;; esac
echo "end $name" >> log
exit $(cat "status-$name")
"""


@dataclass
class Venv:
    folder: Path

    def write(self, name: str, text: object) -> None:
        (self.folder / name).write_text(str(text))

    def set_up(self, *flags: str, status: int = 0) -> str:
        command = [sys.executable, str(INSTALL), '--venv', str(self.folder), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def calls(self, name: str) -> list[str]:
        text = (self.folder / 'log').read_text() if (self.folder / 'log').exists() else ''
        return re.findall(rf'^begin {name} (.*)$', text, re.MULTILINE)

    def constraints(self) -> str:
        return (self.folder / 'given').read_text()


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    venv = Venv(tmp_path / 'venv')
    (venv.folder / 'bin').mkdir(parents=True)
    for name in ('python', 'uv', 'mmres2net'):
        venv.write(f'bin/{name}', PROGRAM.format(folder=venv.folder))
        (venv.folder / 'bin' / name).chmod(0o755)
        venv.write(f'status-{name}', 0)
    torch = VERSIONS['torch']
    facts = {'packages': f'torch=={torch}\n', 'torch-facts': f'{torch}+cu130 False {venv.folder}\n', 'Python.h': ''}
    facts |= {'uv-version': VERSIONS['uv'], 'compiled': 'not available', 'pip-settings': ''}
    for name, text in facts.items():
        venv.write(name, text)
    return venv


def test_all_pins_with_their_hashes_are_given_to_uv_and_the_doctor_decides(venv: Venv) -> None:
    venv.set_up('--extras', 'all', 'dev')
    assert re.search(rf'-e {re.escape(str(ROOT))}\[all,dev\] .*COMPILE=1$', venv.calls('uv')[0])
    assert venv.constraints().strip() == (ROOT / 'requirements.txt').read_text().strip()
    assert venv.calls('mmres2net')[0].split(' INDEX')[0] == 'doctor --require mmdet mmseg mmpretrain'


def test_a_set_up_that_passed_is_not_checked_again_until_something_changes(venv: Venv) -> None:
    for packages, checks in (('', 1), ('', 1), ('numpy==1.26.4\n', 2)):
        venv.write('packages', f'torch=={VERSIONS["torch"]}\n{packages}')
        venv.set_up('--extras', 'seg')
        assert len(venv.calls('mmres2net')) == checks


@pytest.mark.parametrize('program', ['uv', 'mmres2net'])
def test_a_failure_is_the_exit_status_and_the_next_run_tries_again(venv: Venv, program: str) -> None:
    venv.write(f'status-{program}', 3)
    assert 'status 3' in venv.set_up(status=1)
    venv.write(f'status-{program}', 0)
    venv.set_up()
    assert len(venv.calls('mmres2net')) == (1 if program == 'uv' else 2)


def test_the_pinned_uv_is_installed_with_its_hash_and_gets_the_index_of_pip(venv: Venv) -> None:
    venv.write('uv-version', '0.1.0')
    venv.write('pip-settings', "global.index-url='https://index.example/simple'\n")
    venv.set_up()
    assert '--require-hashes' in venv.calls('python')[0]
    assert 'INDEX=https://index.example/simple' in venv.calls('uv')[0]


@pytest.mark.parametrize(('version', 'kept'), [('2.13.0+cpu', True), ('2.5.1', False), ('3.0.0', False)])
def test_a_torch_in_range_is_kept_with_its_companions(venv: Venv, version: str, kept: bool) -> None:
    venv.write('packages', f'torch=={version}\n')
    venv.set_up()
    names = re.findall(r'^([\w.-]+)==(\S+)', venv.constraints(), re.MULTILINE)
    assert ('torch', version if kept else VERSIONS['torch']) in names
    assert ('torchvision' in dict(names)) is not kept
    assert any(name.startswith('nvidia-') for name, _ in names) is not kept


@pytest.mark.parametrize(
    ('version', 'backend', 'replaced'),
    [('2.11.0', 'cpu', True), ('2.11.0+cpu', 'cpu', False), ('2.11.0+cpu', 'auto', False)],
)
def test_a_torch_of_another_build_is_replaced_on_demand(venv: Venv, version: str, backend: str, replaced: bool) -> None:
    venv.write('packages', f'torch=={version}\n')
    venv.set_up('--torch-backend', backend)
    (call,) = venv.calls('uv')
    assert f'--torch-backend {backend} torch=={VERSIONS["torch"]} torchvision=={VERSIONS["torchvision"]}' in call
    assert ('--reinstall-package torch' in call) is replaced
    assert 'torch==' not in venv.constraints()  # their hashes are those of another build


def test_unknown_extras_and_original_openmmlab_packages_are_refused(venv: Venv) -> None:
    assert "'export'" in venv.set_up('--extras', 'nonsense', status=2)  # a known one is named
    venv.write('packages', 'mmdet==3.3.0\n')
    assert 'mmdet' in venv.set_up(status=1)
    assert not venv.calls('uv')


def test_operators_are_compiled_for_torch_and_device(venv: Venv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MAX_JOBS', '3')
    venv.set_up('--ops')
    for part in (f'onedl-mmcv:ops={VERSIONS["torch"]}+cu130-cpu', '--reinstall-package onedl-mmcv', 'CUDA=0 JOBS=3'):
        assert part in venv.calls('uv')[-1]
    assert 'compiled-ops' in venv.calls('mmres2net')[0]
    (venv.folder / 'bin' / 'nvcc').symlink_to('/bin/true')
    monkeypatch.setenv('CUDA_HOME', str(venv.folder))
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    assert 'without CUDA' in venv.set_up('--cuda', status=1)
    assert all(part in venv.calls('uv')[-1] for part in (f'{VERSIONS["torch"]}+cu130-cuda-9.0', 'CUDA=1'))
    venv.write('compiled', '13.0')
    venv.set_up('--cuda')


@pytest.mark.parametrize('missing', ['compiler', 'Python.h', 'older torch'])
def test_what_compiling_needs_is_looked_for_before(venv: Venv, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == 'compiler':
        monkeypatch.setenv('CXX', 'no-such-compiler')
    elif missing == 'Python.h':
        (venv.folder / 'Python.h').unlink()
    else:
        venv.write('torch-facts', f'2.14.1+cu130 False {venv.folder}\n')
    assert missing in venv.set_up('--ops', status=1)
    assert not any('onedl-mmcv' in call for call in venv.calls('uv'))
