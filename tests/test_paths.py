"""The shipped configs are found by path, by name and by command, and a wrong name gets one helpful error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmres2net import paths

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a small package of our layout with its configs beside it, and return the folder of these."""
    for name in ('faster_rcnn_r50.py', 'faster_rcnn_r2n50.py', 'demo/faster_rcnn_r2n50.py', '_base_/runtime.py'):
        path = tmp_path / 'configs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(paths, '_PACKAGE', tmp_path / 'mmres2net')
    return tmp_path / 'configs'


def test_checkout_gives_its_own_configs() -> None:
    assert paths.config_dir() == ROOT / 'configs'


def test_wheel_goes_before_a_neighbouring_folder(shipped: Path) -> None:
    assert paths.config_dir() == shipped
    inside = shipped.parent / 'mmres2net' / '.mim' / 'configs'
    inside.mkdir(parents=True)
    assert paths.config_dir() == inside


def test_package_without_configs_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, '_PACKAGE', tmp_path / 'mmres2net')
    with pytest.raises(FileNotFoundError, match=r'\.mim.configs.*checkout'):
        paths.config_dir()


def test_list_is_sorted_and_without_fragments(shipped: Path) -> None:
    assert paths.list_configs() == ['demo/faster_rcnn_r2n50.py', 'faster_rcnn_r2n50.py', 'faster_rcnn_r50.py']


@pytest.mark.parametrize('name', ['faster_rcnn_r2n50.py', 'faster_rcnn_r2n50', 'demo/faster_rcnn_r2n50'])
def test_name_means_the_shipped_file(shipped: Path, name: str) -> None:
    assert paths.find_config(name) == shipped / f'{name.removesuffix(".py")}.py'


def test_dot_in_a_name_is_no_suffix(shipped: Path) -> None:
    (shipped / 'r2n50_lr0.02.py').touch()
    assert paths.find_config('r2n50_lr0.02') == shipped / 'r2n50_lr0.02.py'


def test_existing_path_is_returned_as_it_is(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / 'own' / 'faster_rcnn_r50.py'
    own.parent.mkdir()
    own.touch()
    assert paths.find_config(own) == own
    monkeypatch.chdir(own.parent)
    assert paths.find_config('faster_rcnn_r50.py') == Path('faster_rcnn_r50.py')  # the user's file, not the shipped one


def test_folder_is_no_config(shipped: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config 'demo'"):
        paths.find_config('demo')


def test_wrong_name_lists_what_comes_close(shipped: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        paths.find_config('faster_rcnn_r2n5O.py')
    message = str(error.value)
    assert message.startswith("no config 'faster_rcnn_r2n5O.py', neither as a path nor in ")
    assert 'close matches: demo/faster_rcnn_r2n50.py, faster_rcnn_r2n50.py' in message
    assert '_base_' not in message


def test_hopeless_name_lists_all(shipped: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'the shipped ones are: demo/faster_rcnn_r2n50\.py, faster'):
        paths.find_config('zzz')


def test_command_prints_the_folder_without_loading_torch() -> None:
    code = "import runpy, sys; runpy.run_module('mmres2net.paths', run_name='__main__'); print('torch' in sys.modules)"
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines() == [str(ROOT / 'configs'), 'False']


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an importable package that ships configs as the hosts do, and one that ships none."""
    for name in ('retina/retina_r50-d8_1x.py', 'retina/twice.py', 'other/twice.py', '_base_/model.py'):
        path = tmp_path / 'somehost' / '.mim' / 'configs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ('somehost', 'plain'):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / '__init__.py').write_text('raise RuntimeError("imported")')
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / 'somehost' / '.mim' / 'configs'


@pytest.mark.parametrize('name', ['retina/retina_r50-d8_1x.py', 'retina/retina_r50-d8_1x', 'retina_r50-d8_1x'])
def test_config_of_a_host(hosts: Path, name: str) -> None:
    assert paths.find_config(f'somehost::{name}') == hosts / 'retina' / 'retina_r50-d8_1x.py'


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('somehost::retina_r50_d8_2x', r'no such config in .*; close matches: somehost::retina/retina_r50-d8_1x\.py$'),
        ('somehost::twice', r'close matches: somehost::other/twice\.py, somehost::retina/twice\.py$'),
        ('somehost::zzz', 'nothing comes close$'),
        ('plain::x', "no package 'plain' with configs"),
        ('absent_host::x', "no package 'absent_host' with configs"),
        ('../up::x', r"no package '\.\./up' with configs"),
        ('__main__::x', "no package '__main__' with configs"),
    ],
)
def test_config_that_no_host_has(hosts: Path, name: str, text: str) -> None:
    with pytest.raises(FileNotFoundError, match=text):
        paths.find_config(name)
