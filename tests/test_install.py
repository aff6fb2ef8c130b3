"""The install script: pip and the network are faked; what it compiles and runs is real where that is quick."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACTS = {'torch': '2.11.0+cu130', 'torchvision': '0.26.0+cu130', 'cuda': '13.0', 'gpus': 0, 'archs': []}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a fresh copy of tools/install.py as a module, so that no test sees another one's patches."""
    spec = importlib.util.spec_from_file_location('install_under_test', ROOT / 'tools' / 'install.py')
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name in ('MAX_JOBS', 'TORCH_CUDA_ARCH_LIST', 'MMRES2NET_WHEELS', 'CUDA_HOME', 'CUDA_PATH', 'CXX'):
        monkeypatch.delenv(name, raising=False)
    return module


@pytest.fixture
def settings(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return settings whose environment and wheel folder are empty temporary folders."""
    monkeypatch.setattr(sys, 'prefix', str(tmp_path / 'env'))
    (tmp_path / 'env').mkdir()
    return make_settings(script, tmp_path)


def make_settings(script: ModuleType, tmp_path: Path, **changes: Any) -> Any:
    values = {'extras': frozenset({'det'}), 'editable': True, 'cuda': None, 'arch_list': ''}
    return script.Settings(**{**values, 'wheels': tmp_path / 'wheels', **changes})


@pytest.fixture
def pip_calls(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace pip by a recorder."""
    calls: list[list[str]] = []
    monkeypatch.setattr(script, 'pip', lambda arguments, title, settings, env=None: calls.append(list(arguments)))
    return calls


def have(script: ModuleType, monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Pretend that exactly these distributions are installed (underscores stand for dashes)."""
    table = {name.replace('_', '-'): version for name, version in versions.items()}
    monkeypatch.setattr(script, 'installed', table.get)


def write_wheel(path: Path, *, ops: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('mmcv/__init__.py', 'x' * 1000)
        if ops:
            archive.writestr('mmcv/_ext.cpython-311-x86_64-linux-gnu.so', 'binary' * 500)
    return path


# --- wheels -----------------------------------------------------------------------------------------------------------


def test_wheel_key_changes_with_all_that_the_binary_depends_on(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [script.wheel_key(*pair) for pair in (('2.11.0', 'cpu'), ('2.11.0+cpu', 'cpu'), ('2.11.0', 'cu13.0-sm9.0'))]
    changes = [
        (script, 'python_tag', lambda: 'cp313'),
        (script.sysconfig, 'get_platform', lambda: 'linux-aarch64'),
        (script.platform, 'libc_ver', lambda: ('glibc', '2.99')),
        (script, 'pinned', lambda: {'onedl-mmcv': '9.9'}),
    ]
    for owner, name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            keys.append(script.wheel_key('2.11.0', 'cpu'))
    assert len(set(keys)) == 7
    assert all(re.fullmatch(r'[\w.+-]+', key) for key in keys), keys  # each is one folder name


def test_whole_wheel_is_told_from_damaged_ones(script: ModuleType, tmp_path: Path) -> None:
    whole = write_wheel(tmp_path / 'whole.whl')
    data = whole.read_bytes()
    (tmp_path / 'half.whl').write_bytes(data[: len(data) // 2])
    (tmp_path / 'flipped.whl').write_bytes(data[:200] + bytes([data[200] ^ 255]) + data[201:])
    (tmp_path / 'empty.whl').write_bytes(b'')
    write_wheel(tmp_path / 'no_ops.whl', ops=False)
    names = ('whole', 'half', 'flipped', 'empty', 'no_ops', 'absent')
    assert [name for name in names if script.wheel_is_whole(tmp_path / f'{name}.whl')] == ['whole']


def test_damaged_stored_wheel_is_removed(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / 'a.whl').write_bytes(b'cut off')
    assert script.stored_wheel(tmp_path) is None
    assert not list(tmp_path.iterdir())
    whole = write_wheel(tmp_path / 'b.whl')
    assert script.stored_wheel(tmp_path) == whole


def fake_build(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *, ops: bool = True) -> list[list[str]]:
    """Replace pip by one that 'builds' a wheel where it is told to."""
    calls: list[list[str]] = []

    def pip(arguments: list[str], title: str, settings: Any, env: Any = None) -> None:
        calls.append(list(arguments))
        if arguments[0] == 'wheel':
            write_wheel(Path(arguments[arguments.index('-w') + 1]) / 'onedl_mmcv-2.3.6-x.whl', ops=ops)

    monkeypatch.setattr(script, 'pip', pip)
    return calls


def test_built_wheel_lands_in_its_folder_and_nothing_else_stays(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_build(script, monkeypatch)
    wheel = script.build_wheel(settings, settings.wheels / 'key', '')
    assert wheel == settings.wheels / 'key' / 'onedl_mmcv-2.3.6-x.whl'
    assert [path.name for path in settings.wheels.iterdir()] == ['key']
    for flag in ('--no-build-isolation', '--no-cache-dir', '--no-deps'):
        assert flag in calls[0]


def test_real_build_of_a_small_stand_in(
    script: ModuleType, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip, the compiler and the checks are real; only the sources are ten lines instead of mmcv's."""
    offer_stand_in(tmp_path / 'index', script.pinned()['onedl-mmcv'])
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
    wheel = script.build_wheel(settings, settings.wheels / 'key', '')
    assert script.stored_wheel(settings.wheels / 'key') == wheel
    assert [path.name for path in settings.wheels.iterdir()] == ['key']
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    code = f'import sys; sys.path.insert(0, {str(tmp_path / "site")!r}); import mmcv._ext; print(mmcv._ext.environment)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == 'WITH_OPS=1 FORCE_CUDA=0'


def offer_stand_in(folder: Path, version: str) -> None:
    """Write an sdist named like mmcv with one small extension, which remembers the variables of its build."""
    source = (
        '#include <Python.h>\n'
        'static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_ext", 0, -1, 0};\n'
        'PyMODINIT_FUNC PyInit__ext(void) {\n'
        '  PyObject *m = PyModule_Create(&definition);\n'
        '  PyModule_AddStringConstant(m, "environment", ENVIRONMENT);\n'
        '  return m;\n'
        '}\n'
    )
    setup = (
        'import os\nfrom setuptools import Extension, setup\n'
        "text = 'WITH_OPS=' + os.environ['MMCV_WITH_OPS'] + ' FORCE_CUDA=' + os.environ['FORCE_CUDA']\n"
        "macros = [('ENVIRONMENT', f'\"{text}\"')]\n"
        "ext = Extension('mmcv._ext', ['ext.c'], define_macros=macros)\n"
        f"setup(name='onedl-mmcv', version='{version}', packages=['mmcv'], ext_modules=[ext])\n"
    )
    tree = folder / f'onedl_mmcv-{version}'
    (tree / 'mmcv').mkdir(parents=True)
    (tree / 'mmcv' / '__init__.py').touch()
    (tree / 'ext.c').write_text(source)
    (tree / 'setup.py').write_text(setup)
    (tree / 'PKG-INFO').write_text(f'Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: {version}\n')
    with tarfile.open(folder / f'{tree.name}.tar.gz', 'w:gz') as archive:
        archive.add(tree, tree.name)


def test_wheel_without_ops_is_refused(script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_build(script, monkeypatch, ops=False)
    with pytest.raises(script.InstallError, match=r'without mmcv\._ext'):
        script.build_wheel(settings, settings.wheels / 'key', '')
    assert not list(settings.wheels.iterdir())


def test_interrupted_build_leaves_no_wheel(script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(arguments: list[str], *rest: Any) -> None:
        write_wheel(Path(arguments[arguments.index('-w') + 1]) / 'onedl_mmcv-2.3.6-x.whl')
        raise KeyboardInterrupt

    monkeypatch.setattr(script, 'pip', pip)
    with pytest.raises(KeyboardInterrupt):
        script.build_wheel(settings, settings.wheels / 'key', '')
    assert not list(settings.wheels.iterdir())


def test_old_scratch_goes_and_young_scratch_stays(script: ModuleType, tmp_path: Path) -> None:
    for name, age in (('.build-old', 25), ('.build-young', 1), ('mmcv-key', 99)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(time.time() - age * 3600,) * 2)
    script.drop_old_scratch(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.build-young', 'mmcv-key']


def test_stored_wheel_is_used_instead_of_a_build(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_build(script, monkeypatch)
    monkeypatch.setattr(script, 'ops_load', lambda: True)
    stored = write_wheel(settings.wheels / script.wheel_key(FACTS['torch'], 'cpu') / 'stored.whl')
    assert script.install_mmcv(settings, FACTS) == 'cpu'
    assert [call[0] for call in calls] == ['install']
    assert str(stored) in calls[0]


def test_wheel_of_another_torch_is_not_used(script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_build(script, monkeypatch)
    monkeypatch.setattr(script, 'ops_load', lambda: True)
    write_wheel(settings.wheels / script.wheel_key('2.10.0', 'cpu') / 'stored.whl')
    script.install_mmcv(settings, FACTS)
    assert [call[0] for call in calls] == ['wheel', 'install']


def test_stored_wheel_that_does_not_load_is_built_again(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_build(script, monkeypatch)
    monkeypatch.setattr(script, 'ops_load', lambda: False)
    write_wheel(settings.wheels / script.wheel_key(FACTS['torch'], 'cpu') / 'stored.whl')
    script.install_mmcv(settings, FACTS)
    assert [call[0] for call in calls] == ['install', 'wheel', 'install']


def test_installed_mmcv_is_kept_only_while_it_loads_and_its_torch_stays(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch, onedl_mmcv=script.pinned()['onedl-mmcv'])
    calls = fake_build(script, monkeypatch)
    monkeypatch.setattr(script, 'ops_load', lambda: True)
    script.install_mmcv(settings, FACTS)
    calls.clear()
    script.install_mmcv(settings, FACTS)
    assert calls == []
    script.install_mmcv(settings, {**FACTS, 'torch': '2.12.0'})
    assert [call[0] for call in calls] == ['wheel', 'install']


def test_no_compiler_is_asked_for_where_a_wheel_or_mmcv_is_there(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch)
    assert not script.may_reuse_wheel(settings)
    write_wheel(settings.wheels / script.wheel_key('2.10.0+cu130', 'cpu') / 'stored.whl')
    assert not script.may_reuse_wheel(settings)
    have(script, monkeypatch, torch='2.10.0')
    assert script.may_reuse_wheel(settings)
    have(script, monkeypatch, torch='2.11.0', onedl_mmcv=script.pinned()['onedl-mmcv'])
    script.key_note(settings).write_text(script.wheel_key('2.11.0+cu130', 'cpu'))
    assert script.may_reuse_wheel(settings)


# --- CUDA or not ------------------------------------------------------------------------------------------------------


def pretend_nvcc(script: ModuleType, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(script, 'find_nvcc', lambda: Path('/cuda/bin/nvcc') if release else None)
    monkeypatch.setattr(script, 'nvcc_release', lambda nvcc: release)


@pytest.mark.parametrize(
    ('cuda', 'gpus', 'nvcc', 'ops'),
    [
        (None, 0, '13.0', 'cpu'),  # a compiler alone is no wish for CUDA
        (None, 1, '13.1', 'cu13.0-sm9.0'),
        (None, 1, '12.8', 'cpu'),
        (None, 1, '', 'cpu'),
        (False, 1, '13.0', 'cpu'),
        (True, 0, '13.0', 'cu13.0-sm10.0_12.0+PTX_7.5_8.0_8.6_8.9_9.0'),
    ],
)
def test_ops_follow_wish_gpu_and_compiler(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuda: bool | None,
    gpus: int,
    nvcc: str,
    ops: str,
) -> None:
    pretend_nvcc(script, monkeypatch, nvcc)
    facts = {**FACTS, 'gpus': gpus, 'archs': ['9.0'] * gpus}
    assert script.choose_ops(make_settings(script, tmp_path, cuda=cuda), facts)[0] == ops


@pytest.mark.parametrize(('nvcc', 'built_for'), [('', '13.0'), ('12.8', '13.0'), ('13.0', None)])
def test_cuda_ops_without_a_matching_compiler_fail_early(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nvcc: str, built_for: str | None
) -> None:
    pretend_nvcc(script, monkeypatch, nvcc)
    with pytest.raises(script.InstallError, match='same major version'):
        script.choose_ops(make_settings(script, tmp_path, cuda=True), {**FACTS, 'cuda': built_for})


def test_launcher_without_a_toolkit_is_passed_over(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ('launcher/bin', 'toolkit/bin', 'toolkit/include'):
        (tmp_path / folder).mkdir(parents=True)
    for name in ('launcher/bin/nvcc', 'toolkit/bin/nvcc', 'toolkit/include/cuda.h'):
        (tmp_path / name).touch()
    monkeypatch.setattr(script.shutil, 'which', lambda name: str(tmp_path / 'launcher' / 'bin' / 'nvcc'))
    assert script.find_nvcc() in (None, Path('/usr/local/cuda/bin/nvcc'))
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'toolkit'))
    assert script.find_nvcc() == tmp_path / 'toolkit' / 'bin' / 'nvcc'


def test_arch_list_of_the_user_is_taken(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_nvcc(script, monkeypatch, '13.0')
    chosen = [
        script.choose_ops(make_settings(script, tmp_path, cuda=True, arch_list=archs), FACTS)
        for archs in ('8.0;9.0', '9.0 8.0')
    ]
    assert [ops for ops, _ in chosen] == ['cu13.0-sm8.0_9.0'] * 2
    assert [archs for _, archs in chosen] == ['8.0;9.0', '9.0 8.0']


def test_cpu_build_hides_the_gpu_and_cuda_build_forces_it(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_nvcc(script, monkeypatch, '13.0')
    cpu = script.build_environment(settings, '', tmp_path)
    cuda = script.build_environment(settings, '9.0', tmp_path)
    assert (cpu['MMCV_WITH_OPS'], cpu['FORCE_CUDA'], cpu['CUDA_VISIBLE_DEVICES']) == ('1', '0', '')
    assert (cuda['MMCV_WITH_OPS'], cuda['FORCE_CUDA'], cuda['TORCH_CUDA_ARCH_LIST']) == ('1', '1', '9.0')
    assert cuda['CUDA_HOME'] == '/cuda'


def test_jobs_are_held_back_by_memory_and_set_by_the_user(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    found = []
    for memory in (64.0, 7.0, 0.5):
        monkeypatch.setattr(script, 'memory_gb', lambda memory=memory: memory)
        found.append(script.jobs())
    monkeypatch.setenv('MAX_JOBS', '5')
    assert [*found, script.jobs()] == [8, 3, 1, 5]


# --- torch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('version', 'supported'),
    [
        ('2.5.1', False),
        ('2.6.0', True),
        ('2.9.1+cpu', True),
        ('2.13.0', True),
        ('2.14.0a0+git12', False),
        ('3.0', False),
    ],
)
def test_torch_range_is_that_of_pyproject(script: ModuleType, version: str, supported: bool) -> None:
    assert script.torch_range() == ('2.6', '2.14')
    assert script.torch_supported(version) is supported


@pytest.mark.parametrize(
    ('wish', 'there', 'wanted'),
    [
        ('', {}, ['torch==2.11.0', 'torchvision==0.26.0']),
        ('', {'torch': '2.9.1', 'torchvision': '0.24.1'}, []),
        ('', {'torch': '2.9.1+cpu'}, ['torch==2.9.1+cpu', 'torchvision==0.24.*']),
        ('', {'torch': '2.14.0', 'torchvision': '0.29.0'}, ['torch==2.11.0', 'torchvision==0.26.0']),
        ('2.10.0', {'torch': '2.9.1', 'torchvision': '0.24.1'}, ['torch==2.10.0', 'torchvision==0.25.*']),
        ('2.10.0', {'torch': '2.10.0+cpu', 'torchvision': '0.25.0+cpu'}, []),
    ],
)
def test_torch_is_kept_completed_or_installed(
    script: ModuleType,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pip_calls: list[list[str]],
    wish: str,
    there: dict[str, str],
    wanted: list[str],
) -> None:
    have(script, monkeypatch, **there)
    script.install_torch(make_settings(script, tmp_path, torch=wish))
    asked = [word for call in pip_calls for word in call if word.startswith('torch')]
    assert asked == wanted


def test_torch_outside_the_range_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.InstallError, match=r'torch 2\.14\.0 .* >=2\.6,<2\.14'):
        script.install_torch(make_settings(script, tmp_path, torch='2.14.0'))


def test_torch_index_serves_torch_alone(
    script: ModuleType, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, pip_calls: list[list[str]]
) -> None:
    have(script, monkeypatch, opencv_python_headless='1')
    monkeypatch.setattr(script, 'probe', lambda code: subprocess.CompletedProcess([], 0))
    chosen = make_settings(script, tmp_path, torch_index='https://index.example/cpu')
    script.install_torch(chosen)
    script.install_project(chosen, tmp_path / 'constraints.txt')
    assert ['--index-url' in call for call in pip_calls] == [True, False]


def test_kept_torch_takes_its_companions_out_of_the_constraints(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch, torch='2.5.1+cpu', torchvision='0.20.1+cpu')
    needs = ['sympy==1.13.1; python_version >= "3.9"', 'filelock', 'triton==3.1.0; platform_system == "Linux"']
    monkeypatch.setattr(script.importlib.metadata, 'requires', lambda name: needs)
    kept = script.pinned(script.write_constraints(settings))
    full = script.pinned()
    assert (kept['torch'], kept['torchvision']) == ('2.5.1+cpu', '0.20.1+cpu')
    gone = set(full) - set(kept)
    assert {'sympy', 'triton', 'nvidia-cublas', 'cuda-toolkit'} <= gone
    assert all(kept[name] == full[name] for name in ('numpy', 'filelock', 'onedl-mmcv', 'setuptools'))


def test_pinned_torch_keeps_the_constraints_as_they_are(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch, torch='2.11.0+cpu', torchvision='0.26.0+cpu')
    assert script.write_constraints(settings).read_text() == (ROOT / 'constraints.txt').read_text()


def test_torch_and_torchvision_of_different_builds_are_explained(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch, torch='2.13.0+cpu', torchvision='0.28.0')
    failed = subprocess.CompletedProcess([], 1, '', 'RuntimeError: operator torchvision::nms does not exist')
    monkeypatch.setattr(script, 'probe', lambda code: failed)
    with pytest.raises(script.InstallError) as error:
        script.torch_facts()
    for part in ('torch 2.13.0+cpu and torchvision 0.28.0', 'torchvision::nms', 'same index', '--torch-index'):
        assert part in str(error.value)


def test_torch_facts_of_this_environment(script: ModuleType) -> None:
    import torch

    facts = script.torch_facts()
    assert (facts['torch'], facts['cuda']) == (torch.__version__, torch.version.cuda)


# --- preflight --------------------------------------------------------------------------------------------------------


def test_old_python_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.InstallError, match=r'Python 3\.9 is too old.*PYTHON='):
        script.require_python((3, 9, 1))
    script.require_python((3, 10, 0))


def test_system_python_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / 'EXTERNALLY-MANAGED').touch()
    with pytest.raises(script.InstallError, match='--venv'):
        script.require_environment(sys.base_prefix, str(tmp_path))
    script.require_environment(str(tmp_path), str(tmp_path))


def test_environment_of_someone_else_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.os, 'access', lambda path, mode: False)  # the tests may run as root
    with pytest.raises(script.InstallError, match=r'cannot be written by this user.*--venv'):
        script.require_environment(str(tmp_path), str(tmp_path))


def test_original_distributions_are_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    have(script, monkeypatch, mmdet='3.3.0', onedl_mmcv='2.3.6')
    with pytest.raises(script.InstallError, match=r'mmdet 3\.3\.0.*same import names'):
        script.require_no_rivals()


def test_missing_compiler_is_named_with_its_remedy(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(script.InstallError, match=r'no-such-compiler.*apt-get install g\+\+.*xcode-select'):
        script.require_compiler()


def test_missing_headers_are_named_with_their_remedy(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.InstallError, match=r'Python\.h.*apt-get install python3-dev'):
        script.require_compiler(str(tmp_path))


def test_compiler_without_cpp17_is_told(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / 'oldcc'
    old.write_text('#!/bin/sh\necho "unrecognized option -std=c++17" >&2\nexit 1\n')
    old.chmod(0o755)
    monkeypatch.setenv('CXX', str(old))
    with pytest.raises(script.InstallError, match=r'C\+\+17[^$]*unrecognized'):
        script.require_compiler()


def test_folders_on_one_disk_share_its_space(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.shutil, 'disk_usage', lambda path: script.shutil._ntuple_diskusage(9e9, 4e9, 5e9))
    script.require_disk({tmp_path / 'not' / 'yet': 4.0})
    with pytest.raises(script.InstallError, match=r'5\.0 GB are free.*about 6\.0 GB are needed'):
        script.require_disk({tmp_path / 'not' / 'yet': 4.0, tmp_path: 2.0})


def test_python_without_venv_is_told(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(script.InstallError, match='apt-get install python3-venv'):
        script.make_environment(tmp_path / 'env')


def test_half_made_environment_is_completed(script: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    assert script.pip_answers(folder / 'bin' / 'python')
    assert subprocess.run([folder / 'bin' / 'python', '-m', 'pip', '--version'], capture_output=True).returncode == 0


def test_half_installed_distributions_are_forgotten(script: ModuleType, tmp_path: Path) -> None:
    for name in ('torch-2.11.0', 'numpy-2.2.6', 'someone_elses-1.0'):
        (tmp_path / f'{name}.dist-info').mkdir()
    (tmp_path / 'numpy-2.2.6.dist-info' / 'INSTALLER').write_text('pip')
    (tmp_path / '~orch').mkdir()
    assert script.drop_half_installed(tmp_path) == ['torch']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['numpy-2.2.6.dist-info', 'someone_elses-1.0.dist-info']


def test_unknown_extra_is_refused_and_all_is_spelt_out(script: ModuleType) -> None:
    with pytest.raises(script.InstallError, match=r"\['sge'\]; choose from .*'seg'"):
        script.settings_from(script.parse(['--extras', 'det,sge']))
    everything = {'det', 'seg', 'cls', 'export', 'cam', 'sal', 'dev'}
    assert script.settings_from(script.parse(['--extras', 'all,dev'])).extras == everything


# --- running commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('output', 'returncode', 'remedy'),
    [
        ('fatal error: Python.h: No such file or directory', 1, 'python3-dev'),
        ("error: command 'g++' failed: No such file or directory", 1, r'apt-get install g\+\+'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 1, 'MAX_JOBS=1'),
        ('nothing to see', -9, 'MAX_JOBS=1'),
        ('OSError: [Errno 28] No space left on device', 1, 'disk is full'),
        ('Failed to establish a new connection: [Errno -3] Temporary failure in name resolution', 1, 'network'),
        ('SSLError(SSLCertVerificationError(1, [SSL: CERTIFICATE_VERIFY_FAILED]))', 1, 'PIP_CERT'),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_50'", 1, 'TORCH_CUDA_ARCH_LIST'),
        ('ERROR: No matching distribution found for torch==2.11.0', 1, 'tested Pythons'),
        ("[Errno 13] Permission denied: '/usr/lib'", 1, 'VENV='),
        ('something new', 1, 'run again'),
    ],
)
def test_failures_come_with_a_remedy(script: ModuleType, output: str, returncode: int, remedy: str) -> None:
    assert re.search(remedy, script.advice(output, returncode))


def test_failed_command_shows_its_end_its_remedy_and_its_log(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / 'log'
    code = "import sys; print('one'); print('No space left on device', file=sys.stderr); sys.exit(3)"
    with pytest.raises(script.InstallError) as error:
        script.run([sys.executable, '-c', code], 'torch', log)
    for part in ('torch failed', '| one', 'disk is full', str(log)):
        assert part in str(error.value)
    assert 'one' not in capfd.readouterr().out  # details are in the log alone


def test_advice_is_about_this_command_not_an_earlier_one(script: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / 'log'
    log.write_text('No space left on device\n')
    with pytest.raises(script.InstallError, match='goes on where it stopped'):
        script.run([sys.executable, '-c', 'raise SystemExit(1)'], 'torch', log)


def test_long_command_shows_signs_of_life(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, 'HEARTBEAT_SECONDS', 0.1)
    code = "import time; print('  [3/98] c++ -O3 nms.cpp', flush=True); time.sleep(1)"
    script.run([sys.executable, '-c', code], 'mmcv', tmp_path / 'log')
    out = capsys.readouterr().out
    assert '3 of 98 files compiled' in out
    assert 'mmcv: done in 0:0' in out


def test_interruption_ends_the_compilers_too(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(process: Any, *rest: Any) -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / 'pid').exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, 'watch', interrupt)
    with pytest.raises(KeyboardInterrupt):
        script.run(
            ['sh', '-c', f'sleep 60 & echo $! >{tmp_path}/p; mv {tmp_path}/p {tmp_path}/pid; wait'],
            'x',
            tmp_path / 'log',
        )
    pid = int((tmp_path / 'pid').read_text())
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def running(pid: int) -> bool:
    """Return whether a process lives; one that only waits to be collected does not."""
    state = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith('Z')


@pytest.mark.parametrize(
    ('failure', 'status', 'word'),
    [('install', 1, 'FAILED: no compiler'), ('disk', 1, 'The disk is full'), ('interrupt', 130, 'interrupted')],
)
def test_exit_status_tells_failure_and_interruption(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: str,
    status: int,
    word: str,
) -> None:
    def check(settings: Any) -> None:
        full = OSError(28, 'No space left on device')
        raise {'install': script.InstallError('no compiler'), 'disk': full, 'interrupt': KeyboardInterrupt()}[failure]

    monkeypatch.setattr(script, 'check', check)
    monkeypatch.setattr(script.signal, 'signal', lambda *args: None)
    monkeypatch.setattr(sys, 'argv', ['install.py', '--check-only'])
    assert script.main() == status
    assert word in capsys.readouterr().out


# --- OpenCV -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('there', 'imports', 'removed'),
    [
        (['opencv-python-headless'], True, None),
        (['opencv-python', 'opencv-python-headless'], True, ['opencv-python', 'opencv-python-headless']),
        (['opencv-python'], True, ['opencv-python']),
        (['opencv-python-headless'], False, ['opencv-python-headless']),
        ([], False, []),
    ],
)
def test_one_opencv_stays(
    script: ModuleType,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    pip_calls: list[list[str]],
    there: list[str],
    imports: bool,
    removed: list[str] | None,
) -> None:
    have(script, monkeypatch, **{name.replace('-', '_'): '5' for name in there})
    monkeypatch.setattr(script, 'probe', lambda code: subprocess.CompletedProcess([], 0 if imports else 1))
    script.keep_one_opencv(settings)
    assert [call[2:] for call in pip_calls if call[0] == 'uninstall'] == ([removed] if removed else [])
    installs = [call[-1] for call in pip_calls if call[0] == 'install']
    pin = f'opencv-python-headless=={script.pinned()["opencv-python-headless"]}'
    assert installs == ([] if removed is None else [pin])


# --- the stamp --------------------------------------------------------------------------------------------------------


def test_finished_run_is_recognised_until_something_changes(
    script: ModuleType, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not script.up_to_date(settings)
    have(script, monkeypatch, torch='2.11.0')
    script.write_stamp(settings)
    assert script.up_to_date(settings)
    assert script.up_to_date(make_settings(script, tmp_path, extras=frozenset()))
    for change in ({'extras': frozenset({'det', 'seg'})}, {'cuda': True}, {'arch_list': '9.0'}, {'editable': False}):
        assert not script.up_to_date(make_settings(script, tmp_path, **change)), change
    have(script, monkeypatch, torch='2.12.0')
    assert not script.up_to_date(settings)


@pytest.mark.parametrize('name', ['CONSTRAINTS', 'PYPROJECT'])
def test_changed_file_is_noticed(
    script: ModuleType, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy = tmp_path / 'copy'
    copy.write_bytes(getattr(script, name).read_bytes())
    monkeypatch.setattr(script, name, copy)
    script.write_stamp(settings)
    assert script.up_to_date(settings)
    copy.write_text(copy.read_text() + '\n')
    assert not script.up_to_date(settings)


@pytest.mark.parametrize('content', ['', '{"fingerprint"', '{}'])
def test_damaged_stamp_counts_as_none(script: ModuleType, settings: Any, content: str) -> None:
    script.stamp_path(settings).write_text(content)
    assert not script.up_to_date(settings)


def test_failed_run_leaves_no_stamp(script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script.write_stamp(settings)

    def preflight(settings: Any) -> None:
        raise script.InstallError('no compiler')

    monkeypatch.setattr(script, 'preflight', preflight)
    with pytest.raises(script.InstallError):
        script.install(settings)
    assert not script.stamp_path(settings).exists()


def test_stamp_holds_the_versions_it_vouches_for(
    script: ModuleType, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(script, monkeypatch, torch='2.11.0', unrelated='1')
    script.write_stamp(settings)
    assert json.loads(script.stamp_path(settings).read_text())['versions'] == {'torch': '2.11.0'}


# --- the closing check ------------------------------------------------------------------------------------------------


def test_installed_ops_pass_their_check(script: ModuleType) -> None:
    assert script.check_nms('cpu') == 'right on cpu'
    assert script.check_roi_align('cpu') == 'right on cpu'


def test_ops_are_loaded_without_the_package_that_needs_more(script: ModuleType) -> None:
    """Between steps 4 and 5 mmcv's own requirements are not there yet; importing the package would fail."""
    assert script.ops_load()
    code = script.OPS_PROBE + "import sys; print('mmcv' in sys.modules, 'mmengine' in sys.modules)"
    assert script.probe(code).stdout.split() == ['False', 'False']


def test_wrong_ops_fail_their_check(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmcv.ops
    import torch

    monkeypatch.setattr(mmcv.ops, 'nms', lambda boxes, scores, iou_threshold: (boxes, torch.arange(3)))
    with pytest.raises(ValueError, match='expected'):
        script.check_nms('cpu')
    monkeypatch.setattr(mmcv.ops, 'RoIAlign', lambda **options: lambda x, roi: x[..., 1:3, 1:3] * 1.0)
    with pytest.raises(ValueError, match='expected'):
        script.check_roi_align('cpu')


def test_cpu_ops_do_not_pass_for_cuda_ops(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmcv.ops

    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(ValueError, match='without CUDA'):
        script.check_cuda_ops()


def test_failed_check_names_itself(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ImportError('undefined symbol')

    monkeypatch.setattr(script, 'check_torch', broken)
    with pytest.raises(script.InstallError, match='"torch and torchvision" failed: ImportError: undefined symbol'):
        script.check(make_settings(script, tmp_path))


# --- the Makefile -----------------------------------------------------------------------------------------------------


def run_make(*arguments: str) -> str:
    """Output of make, the same whether or not the tests themselves were started by make, which hands its flags down."""
    env = {name: value for name, value in os.environ.items() if name not in {'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS'}}
    return subprocess.run(['make', *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_check_sets_up_once_and_ends_with_the_tests() -> None:
    plan = run_make('-n', 'check')
    assert plan.count('tools/install.py') == 1
    assert plan.count('ruff check') == 1
    assert plan.strip().splitlines()[-1].endswith('-m pytest -n 2 --dist loadfile')


def test_help_is_the_default_and_names_every_target() -> None:
    text = run_make()
    phony = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE).group(1).split()
    assert re.findall(r'^  (\w+)', text, re.MULTILINE) == phony
