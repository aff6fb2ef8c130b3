"""What a wheel and an sdist hold, that a wheel works away from its checkout, and that the pins fit the ranges."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import mmres2net

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('mmres2net', 'configs', 'tools')
FILES = ('pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', 'requirements.txt', 'Makefile')
Copy = tuple[Path, dict[str, set[str]]]  # the folder, and its files before any build
IGNORED = shutil.ignore_patterns('__pycache__', '*.pyc', '*.egg-info', '.*_cache')


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def build(source: Path, target: Path) -> Path:
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*command, '-w', str(target), str(source)], check=True, capture_output=True)
    return next(target.glob('*.whl'))


@pytest.fixture(scope='module')
def copied(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    target = tmp_path_factory.mktemp('tree') / 'copy'
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=IGNORED)
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
    return target, {name: files_in(target / name) for name in SOURCES}


@pytest.fixture(scope='module')
def wheel(copied: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copied[0], tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('target')
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_all_sources_and_configs_and_nothing_else(copied: Copy, wheel: Path) -> None:
    wanted = {f'mmres2net/{name}' for name in copied[1]['mmres2net']}
    wanted |= {f'mmres2net/.mim/configs/{name}' for name in copied[1]['configs']}
    assert {name for name in contents(wheel) if '.dist-info/' not in name} == wanted
    assert {'mmres2net/py.typed', 'mmres2net/.mim/configs/faster_rcnn_r2n50.py'} <= wanted


def test_wheel_of_the_sdist_is_the_same_and_builds_leave_the_sources_as_they_were(
    copied: Copy, wheel: Path, tmp_path: Path
) -> None:
    tree, pristine = copied
    command = [sys.executable, '-m', 'build', '--sdist', '--no-isolation', '-o', str(tmp_path), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    assert {name: files_in(tree / name) for name in SOURCES} == pristine
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        archive.extractall(tmp_path, filter='data')
    unpacked = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert contents(build(unpacked, tmp_path / 'wheel')) == contents(wheel)


def test_metadata_names_version_licence_extras_and_command(wheel: Path) -> None:
    info = f'mmres2net-{mmres2net.__version__}.dist-info'
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f'{info}/METADATA').decode()
        commands = archive.read(f'{info}/entry_points.txt').decode()
    assert {'License-Expression: Apache-2.0', 'Requires-Python: >=3.10'} <= set(metadata.splitlines())
    extras = {'seg', 'cls', 'export', 'cam', 'sal', 'cluster', 'ray', 'serve', 'all', 'dev', 'ops'}
    assert set(re.findall(r'^Provides-Extra: (\w+)$', metadata, re.MULTILINE)) == extras
    command = 'mmres2net = mmres2net.__main__:main'
    assert (command in commands, f'{info}/licenses/LICENSE' in contents(wheel)) == (True, True)


def python_in(target: Path, *arguments: str) -> str:
    how = dict(cwd=target, env={**os.environ, 'PYTHONPATH': str(target)}, check=True)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **how).stdout


def test_installed_wheel_finds_its_configs_and_reads_their_bases(target: Path) -> None:
    folder = target / 'mmres2net' / '.mim' / 'configs'
    assert python_in(target, '-m', 'mmres2net.paths').strip() == str(folder)
    code = (
        'from mmengine import Config; from mmres2net.paths import find_config, list_configs\n'
        "print(len(list_configs()), Config.fromfile(find_config('faster_rcnn_r2n50')).model.backbone.type)"
    )
    count, kind = python_in(target, '-c', code).split()[-2:]
    assert int(count) == len([name for name in files_in(folder) if name.endswith('.py') and '_base_' not in name])
    assert kind == 'mmres2net.Res2Net'


def test_importing_the_package_loads_nothing_heavy(target: Path) -> None:
    heavy = {'torch', 'mmcv', 'numpy', 'mmengine'}
    code = f'import sys, mmres2net; print(mmres2net.__version__, {heavy} & {{*sys.modules}})'
    assert python_in(target, '-c', code).split() == [mmres2net.__version__, 'set()']


REQUIREMENTS = (ROOT / 'requirements.txt').read_text()
# Name, version and hashes of every entry.
PINS = re.findall(r'^(\S+)==(\S+)(.*(?:\n +--hash.*)*)', REQUIREMENTS, re.MULTILINE)


def pinned(name: str) -> list[str]:
    return [version for entry, version, _ in PINS if entry == name]


def direct_requirements() -> list[Requirement]:
    """Return every requirement of pyproject.toml but those on ourselves and on the OpenCV that uv leaves out."""
    text = (ROOT / 'pyproject.toml').read_text()
    body = text[text.index('dependencies = [') : text.index('[project.scripts]')]
    found = (Requirement(item) for item in re.findall(r"'([a-z][\w-]*(?:\[[\w,]+\])?(?:[<>=].*?)?)'", body))
    return [requirement for requirement in found if requirement.name not in ('mmres2net', 'opencv-python')]


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    requirements = direct_requirements()
    assert {'torch', 'onedl-mmcv', 'pycocotools', 'timm', 'ninja', 'uv'} <= {r.name for r in requirements}
    for requirement in requirements:
        assert {version in requirement.specifier for version in pinned(requirement.name)} == {True}, requirement
    text = (ROOT / 'pyproject.toml').read_text()
    assert pinned('setuptools')[0] in SpecifierSet(re.search(r"'setuptools([^']+)'", text).group(1))


def test_every_pin_has_hashes_and_no_address_is_written_down() -> None:
    assert len(PINS) == len(re.findall('^[^ #\n]', REQUIREMENTS, re.MULTILINE)) > 100
    assert all(re.search('--hash=sha256:[0-9a-f]{64}', rest) for _, _, rest in PINS)
    assert not re.search(r'://|--[a-z-]*(index|find-links)', REQUIREMENTS)
