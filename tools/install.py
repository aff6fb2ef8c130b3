#!/usr/bin/env python3
"""Install mmres2net and everything below it, on a bare machine or in a Docker build, and prove that it runs.

    python3 tools/install.py --venv .venv --extras all,dev    # what `make setup` calls
    python3 tools/install.py --venv .venv --check-only        # only see that the installed ops really run

The order matters: mmcv's ops are compiled against the torch that is there, so torch comes first, and mmcv is built
without pip's build isolation (an isolated build sees no torch and silently leaves the ops out). The finished mmcv wheel
is kept in a folder of our own, keyed by all it was compiled against; pip's cache would hand it to another torch.

Needs only the standard library. The syntax stays readable for old Pythons, so that they get a message, not a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / 'constraints.txt'
PYPROJECT = ROOT / 'pyproject.toml'
MIN_PYTHON = (3, 10)
NEWEST_TESTED_PYTHON = (3, 13)
STEPS = 6
HEARTBEAT_SECONDS = 20.0
JOB_MEMORY_GB = 2.0  # what one compiler process of mmcv's largest files takes, with room
TORCH_DISK_GB, REST_DISK_GB, BUILD_DISK_GB = 6.5, 2.5, 1.0
EXTRAS = ('det', 'seg', 'cls', 'export', 'cam', 'sal', 'dev')
HOSTS = {'det': 'mmdet', 'seg': 'mmseg', 'cls': 'mmpretrain'}
OPENCV = ('opencv-python', 'opencv-python-headless')
BUILD_TOOLS = ('setuptools', 'wheel', 'ninja', 'packaging', 'psutil')
# The original distributions own the same import names as the maintained ones: one environment holds one set.
RIVALS = ('mmcv', 'mmcv-full', 'mmcv-lite', 'mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain')
# A torch that is kept brings its own companions; these pins are for the pinned torch alone.
TORCH_COMPANIONS = re.compile(r'(torch|torchvision|triton|nvidia-[\w.-]+|cuda-[\w.-]+)==')
# pip names these after one OpenCV distribution was removed on purpose: both own the module cv2.
KNOWN_PIP_CHECK = re.compile(r'requires opencv-python, which is not installed')


class InstallError(Exception):
    """A step cannot go on; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Settings:
    """What the command line asked for."""

    extras: frozenset[str]
    editable: bool
    cuda: bool | None  # None: CUDA ops where a GPU and a matching nvcc are found
    arch_list: str
    wheels: Path
    torch: str = ''  # a wish for another version than the pinned one
    torchvision: str = ''
    torch_index: str = ''

    @property
    def state_dir(self) -> Path:
        """Where the stamp, the log and the effective constraints live: inside the environment they describe."""
        return Path(sys.prefix)

    @property
    def log(self) -> Path:
        return self.state_dir / 'mmres2net-install.log'


# --- small facts ------------------------------------------------------------------------------------------------------


def say(message: str) -> None:
    """Print at once: make and docker build show buffered output too late."""
    print(message, flush=True)


def step(number: int, title: str) -> None:
    say(f'[{number}/{STEPS}] {title}')


def pinned(path: Path = CONSTRAINTS) -> dict[str, str]:
    """Return ``{distribution: version}`` of a constraints file, markers ignored."""
    pairs = re.findall(r'^([A-Za-z0-9._-]+)==([^\s;]+)', path.read_text(encoding='utf-8'), re.MULTILINE)
    return {name.lower(): version for name, version in pairs}


def numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: ``'2.11.0a0+git1'`` gives ``(2, 11, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def torch_range(path: Path = PYPROJECT) -> tuple[str, str]:
    """Return the lowest and the first excluded torch version, as pyproject.toml states them."""
    match = re.search(r"'torch>=([\d.]+),<([\d.]+)'", path.read_text(encoding='utf-8'))
    if match is None:
        raise InstallError(f"{path} has no dependency of the form 'torch>=X,<Y'; restore that line")
    return match.group(1), match.group(2)


def torch_range_text() -> str:
    return '>={},<{}'.format(*torch_range())


def torch_supported(version: str) -> bool:
    low, high = torch_range()
    return numbers(low) <= numbers(version)[:2] < numbers(high)


def torchvision_for(torch_version: str) -> str:
    """Return the torchvision that belongs to a torch 2.x: 0.15 came with 2.0, and both step together."""
    return f'torchvision==0.{numbers(torch_version)[1] + 15}.*'


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None; sees what pip did a moment ago."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def site_packages() -> Path:
    return Path(sysconfig.get_paths()['platlib'])


# --- running commands -------------------------------------------------------------------------------------------------

ADVICE: tuple[tuple[str, str], ...] = (
    (
        r'No space left on device|Errno 28',
        'The disk is full. Free some space, or put the environment, TMPDIR or MMRES2NET_WHEELS on another disk.',
    ),
    (
        r'Killed signal|Killed\s+\S*c(c1)?plus|cannot allocate memory|out of memory|virtual memory exhausted',
        'The compiler ran out of memory. Run it again with MAX_JOBS=1 in front.',
    ),
    (
        r'Python\.h: No such file',
        'The Python headers are missing. Debian/Ubuntu: apt-get install python3-dev.'
        ' Fedora: dnf install python3-devel.',
    ),
    (
        r"command '?\S*(g\+\+|gcc|cc|clang)\S*'? failed: No such file|No such file or directory: '?(g\+\+|c\+\+|gcc)",
        'No C++ compiler. Debian/Ubuntu: apt-get install g++. macOS: xcode-select --install.',
    ),
    (
        r'Temporary failure in name resolution|Connection refused|NewConnectionError|Network is unreachable'
        r'|ConnectTimeout|Read timed out|Connection reset',
        'The package index cannot be reached. Check the network and the proxy or mirror settings of pip, then run it'
        ' again; what was installed is kept.',
    ),
    (
        r'CERTIFICATE_VERIFY_FAILED|SSLError',
        'The package index has a certificate that pip does not trust. Set PIP_CERT to the bundle of your network.',
    ),
    (
        r'The detected CUDA version .* mismatches the version that was used to compile',
        'nvcc and torch are of different CUDA versions. Put the toolkit of torch.version.cuda first (CUDA_HOME, PATH).',
    ),
    (
        r'Unsupported gpu architecture|Unknown CUDA arch',
        'This nvcc does not know an architecture of TORCH_CUDA_ARCH_LIST. Give a list that it supports.',
    ),
    (
        r'Permission denied|Errno 13',
        'A folder is not writable. Use an environment of your own (make setup VENV=...), never sudo pip.',
    ),
    (
        r'No matching distribution found|Could not find a version that satisfies',
        f'No package file fits this Python ({platform.python_version()}, {platform.machine()}) or this index.'
        f' The tested Pythons are 3.{MIN_PYTHON[1]} to 3.{NEWEST_TESTED_PYTHON[1]}.',
    ),
)


def advice(output: str, returncode: int) -> str:
    """Return what to do about a failed command, from its output and exit status."""
    for pattern, text in ADVICE:
        if re.search(pattern, output, re.IGNORECASE):
            return text
    if returncode in (-9, 137):
        return 'The process was killed, most likely for memory. Run it again with MAX_JOBS=1 in front.'
    return 'The full log says more. The set-up may simply be run again: it goes on where it stopped.'


def progress_of(text: str) -> str:
    """Return the newest sign of progress in a log: ninja's ``[12/98]``, else its last line, cut to fit."""
    counts = re.findall(r'^\s*\[(\d+)/(\d+)\]', text, re.MULTILINE)
    if counts:
        return f'{counts[-1][0]} of {counts[-1][1]} files compiled'
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith('WARNING')]
    return lines[-1][:90] if lines else ''


def tail_of(path: Path, size: int) -> str:
    size = min(size, 200_000)
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode('utf-8', 'replace')


def clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def run(command: Sequence[str], title: str, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command with its output in the log and a sign of life on the screen.

    Raises:
        InstallError: the command failed; the message has its last lines, the remedy and the log's path.
    """
    start = time.monotonic()
    with log.open('a', encoding='utf-8') as file:
        file.write(f'\n$ {" ".join(command)}\n')
        file.flush()
        begin = log.stat().st_size
        # A session of its own: an interrupted build must take its compilers with it.
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            watch(process, lambda: tail_of(log, log.stat().st_size - begin), start)
        except BaseException:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if process.returncode != 0:
        output = tail_of(log, log.stat().st_size - begin)
        last = '\n'.join(f'    | {line}' for line in output.strip().splitlines()[-15:])
        raise InstallError(f'{title} failed.\n{last}\n{advice(output, process.returncode)}\nFull log: {log}')
    say(f'      {title}: done in {clock(time.monotonic() - start)}')


def watch(process: subprocess.Popen[bytes], read_log: Callable[[], str], start: float) -> None:
    """Wait for a process and print a heartbeat meanwhile."""
    while True:
        try:
            process.wait(HEARTBEAT_SECONDS)
            return
        except subprocess.TimeoutExpired:
            say(f'      {clock(time.monotonic() - start)}  {progress_of(read_log())}')


def pip(arguments: Sequence[str], title: str, settings: Settings, env: Mapping[str, str] | None = None) -> None:
    base = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--no-input']
    run([*base, *arguments], title, settings.log, env)


def probe(code: str) -> subprocess.CompletedProcess[str]:
    """Run a snippet in a fresh interpreter: a broken binary module must not take this process with it."""
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)


# --- step 1: what the machine must have -------------------------------------------------------------------------------


def require_python(version: Sequence[int] = sys.version_info) -> None:
    if tuple(version[:2]) < MIN_PYTHON:
        raise InstallError(
            f'Python {version[0]}.{version[1]} is too old, 3.10 or newer is needed.'
            ' Name one: make setup PYTHON=python3.12'
        )
    if tuple(version[:2]) > NEWEST_TESTED_PYTHON:
        say(f'      note: Python {version[0]}.{version[1]} is newer than the tested ones; some pins may have no wheels')


def require_environment(prefix: str = sys.prefix, stdlib: str = '') -> None:
    """Refuse a Python that belongs to the operating system (PEP 668) or to someone else."""
    marker = Path(stdlib or sysconfig.get_path('stdlib')) / 'EXTERNALLY-MANAGED'
    if prefix == sys.base_prefix and marker.exists():
        raise InstallError(
            f'{sys.executable} is managed by the operating system. Let the script make an environment: --venv .venv'
        )
    if not os.access(prefix, os.W_OK):
        raise InstallError(f'{prefix} cannot be written by this user. Use an environment of your own: --venv .venv')


def require_no_rivals(names: Iterable[str] = RIVALS) -> None:
    found = [f'{name} {version}' for name in names if (version := installed(name))]
    if found:
        raise InstallError(
            f'this environment holds original OpenMMLab distributions: {", ".join(found)}. They own the same import'
            ' names as the maintained onedl-* ones. Uninstall them, or use a new environment: make setup VENV=.venv'
        )


def require_disk(needs: Mapping[Path, float]) -> None:
    """Check free space; folders on one file system share it.

    Args:
        needs: gigabytes by folder; a folder need not exist yet.
    """
    by_device: dict[int, tuple[Path, float]] = {}
    for folder, gigabytes in needs.items():
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        device = there.stat().st_dev
        by_device[device] = (there, by_device.get(device, (there, 0.0))[1] + gigabytes)
    for there, gigabytes in by_device.values():
        free = shutil.disk_usage(there).free / 1e9
        if free < gigabytes:
            raise InstallError(
                f'{free:.1f} GB are free where {there} lies, about {gigabytes:.1f} GB are needed. Free some space, or'
                ' choose another disk: make setup VENV=/big/disk/venv (and TMPDIR, MMRES2NET_WHEELS, PIP_CACHE_DIR)'
            )


def require_compiler(include: str = '') -> None:
    """Compile a few lines with C++17 and Python.h, as the ops will need both."""
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if shutil.which(compiler) is None:
        raise InstallError(
            f'no C++ compiler ({compiler}) was found; mmcv has to be compiled. Debian/Ubuntu: apt-get install g++.'
            ' Fedora: dnf install gcc-c++. macOS: xcode-select --install. Or set CXX.'
        )
    include = include or sysconfig.get_paths()['include']
    command = [compiler, '-std=c++17', '-fsyntax-only', f'-I{include}', '-x', 'c++', '-']
    source = '#include <Python.h>\n#include <optional>\nstd::optional<int> x;\n'
    result = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if 'Python.h' in result.stderr:
        raise InstallError(
            f'the headers of Python {platform.python_version()} (Python.h) are not in {include}. Debian/Ubuntu: apt-get'
            f' install python3-dev. Fedora: dnf install python3-devel. Or use another Python: make setup PYTHON=...'
        )
    if result.returncode != 0:
        raise InstallError(f'{compiler} cannot compile C++17 (gcc >= 9 or clang >= 9 can):\n{result.stderr[-500:]}')


def find_nvcc() -> Path | None:
    """Return the compiler of a whole CUDA toolkit: one whose headers lie beside it, not a mere launcher on the PATH."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    found = [Path(home, 'bin', 'nvcc')] if home else []
    on_path = shutil.which('nvcc')
    found += [Path(on_path).resolve()] if on_path else []
    found.append(Path('/usr/local/cuda/bin/nvcc'))
    return next((path for path in found if path.exists() and (path.parents[1] / 'include' / 'cuda.h').exists()), None)


def nvcc_release(nvcc: Path) -> str:
    """Return nvcc's release such as ``'13.0'``."""
    text = subprocess.run([str(nvcc), '--version'], capture_output=True, text=True, check=False).stdout
    match = re.search(r'release (\d+\.\d+)', text)
    if match is None:
        raise InstallError(f'{nvcc} --version names no release:\n{text[-300:]}')
    return match.group(1)


def preflight(settings: Settings) -> None:
    """Find out what is missing before anything is downloaded.

    Raises:
        InstallError: naming the missing thing and how to get it.
    """
    require_no_rivals()
    drop_half_installed(site_packages())
    build = not may_reuse_wheel(settings)
    torch_gb = 0.0 if installed('torch') else TORCH_DISK_GB
    tool_gb = 0.0 if installed('onedl-mmengine') else REST_DISK_GB
    require_disk({Path(sys.prefix): torch_gb + tool_gb, settings.wheels: BUILD_DISK_GB if build else 0.0})
    if build:
        require_compiler()
    if settings.cuda and find_nvcc() is None:
        raise InstallError('--cuda needs nvcc, the CUDA compiler: install the CUDA toolkit and set CUDA_HOME')


def drop_half_installed(folder: Path) -> list[str]:
    """Forget distributions whose installation was cut off, so that pip installs them anew.

    pip unpacks all files, then writes INSTALLER; a dist-info folder without it was never finished.
    """
    pins, dropped = pinned(), []
    for info in folder.glob('*.dist-info'):
        name = info.name.split('-')[0].replace('_', '-').lower()
        if name in pins and not (info / 'INSTALLER').exists():
            shutil.rmtree(info)
            dropped.append(name)
    for rest in folder.glob('~*'):  # what an interrupted pip uninstall leaves
        shutil.rmtree(rest, ignore_errors=True)
    if dropped:
        say(f'      an earlier run was cut off; installing again: {", ".join(sorted(dropped))}')
    return dropped


# --- step 2: torch ----------------------------------------------------------------------------------------------------

TORCH_PROBE = """
import json, torch
facts = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count()}
facts['archs'] = sorted({'%d.%d' % torch.cuda.get_device_capability(i) for i in range(facts['gpus'])})
import torchvision
facts['torchvision'] = torchvision.__version__
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]
print(json.dumps(facts))
"""


def torch_facts() -> dict:
    """Import torch and torchvision in a fresh interpreter and run one operator of each.

    Returns:
        ``torch`` and ``torchvision`` (full versions), ``cuda`` (that torch was built for, or None), ``gpus`` (how
        many are visible), ``archs`` (their compute capabilities).

    Raises:
        InstallError: they do not import or do not belong together.
    """
    result = probe(TORCH_PROBE)
    if result.returncode == 0:
        return json.loads(result.stdout.strip().splitlines()[-1])
    pair = f'torch {installed("torch")} and torchvision {installed("torchvision")}'
    last = '\n'.join(f'    | {line}' for line in result.stderr.strip().splitlines()[-4:])
    raise InstallError(
        f'{pair} do not work together:\n{last}\nBoth must come from the same index and build: a torch that ends in +cpu'
        ' beside a torchvision built for CUDA cannot load its operators. Uninstall both and run this again, with'
        ' --torch-index URL if they shall come from another index than the default one.'
    )


def install_torch(settings: Settings) -> None:
    """Keep a torch of the supported range, else install the one asked for or pinned; torchvision follows torch.

    Raises:
        InstallError: the torch that is asked for is outside the supported range.
    """
    pins, found = pinned(), installed('torch')
    torch = settings.torch or (found if found and torch_supported(found) else pins['torch'])
    if not torch_supported(torch):
        raise InstallError(f'torch {torch} is outside the supported range {torch_range_text()}')
    keep = found is not None and found.split('+')[0] == torch.split('+')[0]
    if keep and installed('torchvision'):
        say(f'      torch {found} is there and in the supported range: kept')
        return
    if found and not keep:
        say(f'      torch {found} is there, {torch} takes its place (supported: {torch_range_text()})')
    if torch == pins['torch']:
        wanted = [
            f'torch=={torch}',
            f'torchvision=={settings.torchvision or pins["torchvision"]}',
            '-c',
            str(CONSTRAINTS),
        ]
    else:  # the pins fit the pinned torch alone
        version = settings.torchvision
        wanted = [f'torch=={torch}', f'torchvision=={version}' if version else torchvision_for(torch)]
    index = ['--index-url', settings.torch_index] if settings.torch_index else []
    pip(['install', *index, *wanted], ' and '.join(wanted[:2]), settings)


def write_constraints(settings: Settings) -> Path:
    """Write the constraints for this environment and return their path.

    An installed torch that is not the pinned one brings its own companions: the pins of those, and of all that it
    requires in one exact version, give way to it.
    """
    lines = CONSTRAINTS.read_text(encoding='utf-8').splitlines()
    pins = pinned()
    pair = {name: version for name in ('torch', 'torchvision') if (version := installed(name))}
    if any(numbers(version) != numbers(pins[name]) for name, version in pair.items()):
        exact = {name for requirement in importlib.metadata.requires('torch') or () for name in exact_name(requirement)}
        lines = [line for line in lines if not TORCH_COMPANIONS.match(line) and line.split('==')[0] not in exact]
        lines += [f'{name}=={version}' for name, version in pair.items()]
    path = settings.state_dir / 'mmres2net-constraints.txt'
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def exact_name(requirement: str) -> list[str]:
    """Return the name in a requirement of one exact version, such as ``sympy==1.13.1; python_version > "3.8"``."""
    return [name.lower() for name in re.findall(r'^([\w.-]+)\s*\(?==', requirement)]


# --- steps 3 and 4: mmcv with its ops ---------------------------------------------------------------------------------


def install_build_tools(settings: Settings, constraints: Path) -> None:
    # Named by range, not by pin: an environment's own setuptools is fine while mmcv and torch both accept it.
    pip(['install', 'setuptools>=80,<82', *BUILD_TOOLS[1:], '-c', str(constraints)], ', '.join(BUILD_TOOLS), settings)


def python_tag() -> str:
    return f'cp{sys.version_info[0]}{sys.version_info[1]}'


def wheel_key(torch_version: str, ops: str) -> str:
    """Return the folder name of an mmcv wheel: all that its binary depends on.

    Args:
        torch_version: the full version with its build, such as ``2.11.0+cu130``.
        ops: ``cpu``, or ``cu13.0-sm8.0_9.0`` for CUDA ops.
    """
    libc = ''.join(platform.libc_ver())
    machine = re.sub(r'[^\w.]+', '_', f'{sysconfig.get_platform()}_{libc}'.rstrip('_'))
    return f'mmcv{pinned()["onedl-mmcv"]}-torch{torch_version}-{ops}-{python_tag()}-{machine}'


def wheel_is_whole(path: Path) -> bool:
    """Return whether a wheel can be read to its end and holds the compiled ops."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            has_ops = any(re.fullmatch(r'mmcv/_ext\.[\w.-]+', name) for name in names)
            return has_ops and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def stored_wheel(folder: Path) -> Path | None:
    """Return the whole wheel in a keyed folder; remove broken ones."""
    for path in sorted(folder.glob('*.whl')):
        if wheel_is_whole(path):
            return path
        say(f'      {path.name} in {folder} is damaged or without ops: removed, it will be built again')
        path.unlink()
    return None


def may_reuse_wheel(settings: Settings) -> bool:
    """Return whether no compiler will be needed, as far as that is known before torch is there."""
    version = installed('torch') or ''
    version = settings.torch or (version if torch_supported(version) else pinned()['torch'])
    kind = 'cu' if settings.cuda else 'cpu'
    pattern = wheel_key(f'{version.split("+")[0]}*', f'{kind}*')
    if fnmatch.fnmatch(mmcv_of(settings), pattern):
        return True
    return any(stored_wheel(folder) for folder in settings.wheels.glob(pattern))


def jobs() -> int:
    """Return how many compilers may run: the cores, held back by memory; MAX_JOBS overrides."""
    if os.environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(os.environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, min(cores, int(memory_gb() / JOB_MEMORY_GB)))


def memory_gb() -> float:
    """Return the free memory in GB, within the limit of a container; 4 where the system does not tell."""
    found = []
    with contextlib.suppress(OSError, AttributeError, IndexError):
        found.append(int(re.findall(r'MemAvailable:\s+(\d+)', Path('/proc/meminfo').read_text())[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))
    return min(found) / 1e9 if found else 4.0


def default_arch_list(cuda: str) -> str:
    """Return the architectures to build for where no GPU is there to ask: those of the data-centre cards and up."""
    archs = ['7.5', '8.0', '8.6', '8.9', '9.0']
    if numbers(cuda) >= (12, 8):
        archs += ['10.0', '12.0']
    return ';'.join(archs) + '+PTX'


def choose_ops(settings: Settings, facts: Mapping) -> tuple[str, str]:
    """Return the kind of ops for the wheel key and the CUDA arch list (empty for CPU ops).

    Raises:
        InstallError: CUDA ops were asked for and cannot be built here.
    """
    nvcc = find_nvcc()
    same = bool(facts['cuda'] and nvcc and numbers(nvcc_release(nvcc))[0] == numbers(facts['cuda'])[0])
    if settings.cuda is None and facts['gpus'] and not same:
        say(
            f'      note: a GPU is visible, but no nvcc of CUDA {facts["cuda"]} was found: the ops are built for the'
            ' CPU only, and detectors will not run on the GPU. Install that toolkit, then: make setup CUDA=1'
        )
    if not (settings.cuda or (settings.cuda is None and facts['gpus'] and same)):
        return 'cpu', ''
    if not same:
        raise InstallError(
            'CUDA ops need a torch built for CUDA and an nvcc of the same major version:'
            f' torch {facts["torch"]} is built for CUDA {facts["cuda"]}, nvcc is'
            f' {nvcc and nvcc_release(nvcc)} ({nvcc}). Set CUDA_HOME to a matching toolkit.'
        )
    archs = settings.arch_list or ';'.join(facts['archs']) or default_arch_list(facts['cuda'])
    say(f'      CUDA ops for the architectures {archs} (the variable TORCH_CUDA_ARCH_LIST changes them)')
    return f'cu{facts["cuda"]}-sm{"_".join(sorted(re.split("[; ,]+", archs)))}', archs


def build_environment(settings: Settings, archs: str, scratch: Path) -> dict[str, str]:
    """Return the variables of the mmcv build; a GPU that is visible must not turn a CPU build into a CUDA one."""
    env = {**os.environ, 'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs()), 'TMPDIR': str(scratch)}
    cuda = {'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': archs}
    env.update(cuda if archs else {'FORCE_CUDA': '0', 'CUDA_VISIBLE_DEVICES': ''})
    nvcc = find_nvcc()
    if archs and nvcc and 'CUDA_HOME' not in env:
        env['CUDA_HOME'] = str(nvcc.parents[1])
    # ninja and the environment's other tools are called by name.
    env['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), env.get('PATH', '')])
    return env


def build_wheel(settings: Settings, folder: Path, archs: str) -> Path:
    """Compile mmcv and move the finished wheel into its keyed folder in one step."""
    settings.wheels.mkdir(parents=True, exist_ok=True)
    drop_old_scratch(settings.wheels)
    scratch = Path(tempfile.mkdtemp(prefix='.build-', dir=settings.wheels))
    requirement = f'onedl-mmcv=={pinned()["onedl-mmcv"]}'
    command = ['wheel', '-v', '--no-cache-dir', '--no-build-isolation', '--no-deps', '--no-binary', 'onedl-mmcv']
    say(f'      compiling {requirement} with {jobs()} job(s); about 9 minutes on two cores, CUDA ops take longer')
    try:
        env = build_environment(settings, archs, scratch)
        pip([*command, '-w', str(scratch / 'out'), requirement], f'{requirement} compiled', settings, env)
        built = next((scratch / 'out').glob('*.whl'))
        if not wheel_is_whole(built):
            raise InstallError(f'{built.name} was built without mmcv._ext; the log says why: {settings.log}')
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(built, folder / built.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder / built.name


def drop_old_scratch(wheels: Path, hours: float = 24.0) -> None:
    """Remove what killed builds left; a younger one may still be running."""
    for path in wheels.glob('.build-*'):
        if time.time() - path.stat().st_mtime > hours * 3600:
            shutil.rmtree(path, ignore_errors=True)


# By its file: the package mmcv imports mmengine and more, which come only with the next step.
OPS_PROBE = """
import glob, importlib.util, os, sysconfig, torch
paths = glob.glob(os.path.join(sysconfig.get_paths()['platlib'], 'mmcv', '_ext.*'))
spec = importlib.util.spec_from_file_location('mmcv._ext', paths[0])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


def ops_load() -> bool:
    """Return whether the compiled ops that are installed load beside the installed torch."""
    return probe(OPS_PROBE).returncode == 0


def install_mmcv(settings: Settings, facts: Mapping) -> str:
    """Install the mmcv wheel of this environment's key, built now or earlier; return its kind of ops."""
    ops, archs = choose_ops(settings, facts)
    key = wheel_key(facts['torch'], ops)
    note = key_note(settings)
    if mmcv_of(settings) == key and ops_load():
        say('      mmcv with its ops is installed for this torch: kept')
        return ops
    folder = settings.wheels / key
    wheel = stored_wheel(folder)
    if wheel:
        say(f'      built earlier: {wheel}')
        place_wheel(settings, wheel)
    if wheel is None or not ops_load():
        if wheel:
            say('      its ops do not load here: it is built again')
        place_wheel(settings, build_wheel(settings, folder, archs))
    note.write_text(key, encoding='utf-8')
    return ops


def key_note(settings: Settings) -> Path:
    return settings.state_dir / 'mmres2net-mmcv.txt'


def mmcv_of(settings: Settings) -> str:
    """Return the key of the mmcv that an earlier run installed here, or nothing."""
    note = key_note(settings)
    there = note.exists() and installed('onedl-mmcv') == pinned()['onedl-mmcv']
    return note.read_text(encoding='utf-8') if there else ''


def place_wheel(settings: Settings, wheel: Path) -> None:
    pip(['install', '--force-reinstall', '--no-deps', str(wheel)], 'mmcv installed', settings)


# --- step 5: the project and one OpenCV -------------------------------------------------------------------------------


def install_project(settings: Settings, constraints: Path) -> None:
    extras = f'[{",".join(sorted(settings.extras))}]' if settings.extras else ''
    target = ['-e', f'{ROOT}{extras}'] if settings.editable else [f'{ROOT}{extras}']
    pip(['install', *target, '-c', str(constraints)], f'mmres2net{extras} and its dependencies', settings)
    keep_one_opencv(settings)


def keep_one_opencv(settings: Settings) -> None:
    """Leave only opencv-python-headless: two distributions would own cv2, and the other one needs libGL."""
    present = [name for name in OPENCV if installed(name)]
    if present == ['opencv-python-headless'] and probe('import cv2').returncode == 0:
        return
    if present:
        pip(['uninstall', '-y', *present], 'OpenCV distributions that share cv2 removed', settings)
    requirement = f'opencv-python-headless=={pinned()["opencv-python-headless"]}'
    pip(['install', '--no-deps', '--force-reinstall', requirement], requirement, settings)


# --- step 6: does it run ----------------------------------------------------------------------------------------------


def check(settings: Settings) -> None:
    """Run the installed ops and imports and compare with values worked out by hand.

    Raises:
        InstallError: naming the check that failed.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ('torch and torchvision', check_torch),
        ('mmcv NMS', partial(check_nms, 'cpu')),
        ('mmcv RoIAlign, forward and backward', partial(check_roi_align, 'cpu')),
        ('OpenCV', check_opencv),
    ]
    hosts = [name for extra, name in HOSTS.items() if extra in settings.extras]
    checks += [(name, partial(check_import, name)) for name in hosts]
    if settings.cuda:
        checks.append(('CUDA ops', check_cuda_ops))
    for title, function in checks:
        try:
            say(f'      ok  {title}: {function()}')
        except Exception as error:
            raise InstallError(f'the check "{title}" failed: {type(error).__name__}: {error}') from error
    report_conflicts()


def expect(value: object, wanted: object) -> None:
    if value != wanted:
        raise ValueError(f'got {value}, expected {wanted}')


def check_torch() -> str:
    facts = torch_facts()
    return f'{facts["torch"]}, {facts["torchvision"]}, CUDA {facts["cuda"]}, {facts["gpus"]} GPU(s) visible'


def check_nms(device: str) -> str:
    """Two boxes that share 81 of 119 units of area (IoU 0.68), and one apart."""
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], device=device)
    scores = torch.tensor([0.8, 0.9, 0.7], device=device)
    expect(nms(boxes, scores, iou_threshold=0.67)[1].tolist(), [1, 2])
    expect(nms(boxes, scores, iou_threshold=0.69)[1].tolist(), [1, 0, 2])
    return f'right on {device}'


def check_roi_align(device: str) -> str:
    """On the ramp f(y, x) = 10 y + x, one sample per bin falls on (1, 1.5), (1, 2.5), (2, 1.5) and (2, 2.5)."""
    import torch
    from mmcv.ops import RoIAlign

    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing='ij')
    ramp = (10 * rows + columns)[None, None].to(device).requires_grad_()
    roi = torch.tensor([[0.0, 1.5, 1.0, 3.5, 3.0]], device=device)
    pooled = RoIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=1, aligned=True)(ramp, roi)
    expect(pooled.flatten().tolist(), [11.5, 12.5, 21.5, 22.5])
    pooled.sum().backward()
    wanted = torch.zeros(5, 5)
    wanted[1:3, 1:4] = torch.tensor([0.5, 1.0, 0.5])
    expect(ramp.grad[0, 0].tolist(), wanted.tolist())
    return f'right on {device}'


def check_opencv() -> str:
    import cv2

    expect([name for name in OPENCV if installed(name)], ['opencv-python-headless'])
    return cv2.__version__


def check_import(name: str) -> str:
    return importlib.import_module(name).__version__


def check_cuda_ops() -> str:
    """The ops must know the CUDA they were compiled with, GPU or not; with a GPU they also run there."""
    import torch
    from mmcv.ops import get_compiling_cuda_version

    version = get_compiling_cuda_version()
    if version == 'not available':
        raise ValueError('mmcv was compiled without CUDA')
    if not torch.cuda.is_available():
        return f'compiled with CUDA {version}; no GPU is visible, so they were not run'
    check_nms('cuda')
    check_roi_align('cuda')
    return f'compiled with CUDA {version} and right on the GPU'


def report_conflicts() -> None:
    """Print what pip thinks of the environment; conflicts are told, not fatal: the checks above are the judge."""
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'check']
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [] if result.returncode == 0 else result.stdout.strip().splitlines()
    known = [line for line in lines if KNOWN_PIP_CHECK.search(line)]
    for line in (line for line in lines if line not in known):
        say(f'      note: pip check says: {line}')
    if known:
        say(f'      ({len(known)} packages ask pip for opencv-python; the headless one gives them the same cv2)')


# --- the stamp: nothing to do the second time -------------------------------------------------------------------------


def fingerprint() -> str:
    """Return a hash of the files that decide what gets installed."""
    digest = hashlib.sha256()
    for path in (PYPROJECT, ROOT / 'setup.py', CONSTRAINTS, Path(__file__).resolve()):
        digest.update(path.read_bytes() + b'\0')
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the installed versions of all pinned distributions: what a stamp vouches for."""
    return {name: version for name in (*pinned(), 'mmres2net') if (version := installed(name))}


def stamp_path(settings: Settings) -> Path:
    return settings.state_dir / 'mmres2net-install.json'


def write_stamp(settings: Settings) -> None:
    record = {
        'fingerprint': fingerprint(),
        'root': str(ROOT),
        'extras': sorted(settings.extras),
        'cuda': settings.cuda,
        'arch_list': settings.arch_list,
        'versions': versions(),
    }
    stamp_path(settings).write_text(json.dumps(record, indent=1), encoding='utf-8')


def up_to_date(settings: Settings) -> bool:
    """Return whether a finished run already did all of this; a copy (not editable) is never taken for granted."""
    try:
        record = json.loads(stamp_path(settings).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False
    same = {'fingerprint': fingerprint(), 'root': str(ROOT), 'versions': versions()}
    return (
        settings.editable
        and all(record.get(key) == value for key, value in same.items())
        and settings.extras <= set(record.get('extras', ()))
        and settings.cuda in (None, record.get('cuda'))
        and settings.arch_list in ('', record.get('arch_list'))
        and settings.torch in ('', record['versions'].get('torch', '').split('+')[0])
    )


# --- the command ------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--venv', type=Path, help='environment to install into; made if it is not there')
    parser.add_argument('--extras', default='det,seg,cls', help=f'comma-separated, of: {", ".join(EXTRAS)}, all')
    parser.add_argument('--no-editable', action='store_true', help='copy the package instead of linking the checkout')
    cuda = parser.add_mutually_exclusive_group()
    cuda.add_argument('--cuda', action='store_true', default=None, help='build CUDA ops, even where no GPU is visible')
    cuda.add_argument('--no-cuda', dest='cuda', action='store_false', help='build CPU ops, even where a GPU is visible')
    parser.add_argument('--torch', default='', metavar='VERSION', help='instead of the one that is there or pinned')
    parser.add_argument('--torchvision', default='', metavar='VERSION', help='goes with --torch')
    parser.add_argument('--torch-index', default='', metavar='URL', help='index for torch and torchvision alone')
    parser.add_argument('--wheels', type=Path, help='folder of built mmcv wheels (or the variable MMRES2NET_WHEELS)')
    parser.add_argument('--check-only', action='store_true', help='install nothing, only see that all runs')
    return parser.parse_args(arguments)


def settings_from(options: argparse.Namespace) -> Settings:
    """Turn options into settings.

    Raises:
        InstallError: an extra does not exist.
    """
    extras = {name.strip() for name in options.extras.split(',') if name.strip()}
    unknown = extras - {*EXTRAS, 'all'}
    if unknown:
        raise InstallError(f'unknown extras {sorted(unknown)}; choose from {[*EXTRAS, "all"]}')
    if 'all' in extras:
        extras = extras - {'all'} | (set(EXTRAS) - {'dev'})
    wheels = options.wheels or os.environ.get('MMRES2NET_WHEELS') or Path.home() / '.cache' / 'mmres2net' / 'wheels'
    return Settings(
        extras=frozenset(extras),
        editable=not options.no_editable,
        cuda=options.cuda,
        arch_list=os.environ.get('TORCH_CUDA_ARCH_LIST', ''),
        wheels=Path(wheels).expanduser().absolute(),
        torch=options.torch,
        torchvision=options.torchvision,
        torch_index=options.torch_index,
    )


def enter_environment(folder: Path) -> None:
    """Go on with the Python of an environment, which is made where it is missing; returns if it is the running one."""
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    python = folder.absolute() / 'bin' / 'python'
    if os.environ.get('MMRES2NET_ENTERED') == str(python):
        raise InstallError(f'{python} is not the Python of {folder}; remove that folder or name another one')
    if not pip_answers(python):
        make_environment(folder)
    os.environ['MMRES2NET_ENTERED'] = str(python)
    os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def pip_answers(python: Path) -> bool:
    """Return whether an environment has pip; one whose making was cut off, or that another tool made, may lack it."""
    if not python.exists():
        return False
    attempts = (['pip', '--version'], ['ensurepip', '--default-pip'])
    return any(subprocess.run([str(python), '-m', *words], capture_output=True).returncode == 0 for words in attempts)


def make_environment(folder: Path) -> None:
    """Make, or complete, a virtual environment.

    Raises:
        InstallError: Python came without its venv or ensurepip module, or the folder cannot be written.
    """
    if any(importlib.util.find_spec(name) is None for name in ('venv', 'ensurepip')):
        raise InstallError(
            f'this Python ({sys.executable}) cannot make environments. Debian/Ubuntu: apt-get install python3-venv'
        )
    say(f'making the environment {folder} with Python {platform.python_version()}')
    result = subprocess.run([sys.executable, '-m', 'venv', str(folder)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = (result.stdout + result.stderr)[-1500:]
        raise InstallError(f'{folder} could not be made:\n{output}\n{advice(output, result.returncode)}')


def install(settings: Settings) -> None:
    """Carry out all steps; each is safe to repeat and finds out itself what is already done."""
    require_environment()
    stamp_path(settings).unlink(missing_ok=True)
    settings.log.write_text('', encoding='utf-8')
    say(f'details go to {settings.log}')
    step(1, f'Python {platform.python_version()}, compiler, headers, disk')
    preflight(settings)
    step(2, f'torch (supported: {torch_range_text()}, tested: {pinned()["torch"]})')
    install_torch(settings)
    facts = torch_facts()
    constraints = write_constraints(settings)
    step(3, 'build tools for mmcv')
    install_build_tools(settings, constraints)
    step(4, f'mmcv {pinned()["onedl-mmcv"]} with its ops')
    ops = install_mmcv(settings, facts)
    step(5, f'mmres2net with {", ".join(sorted(settings.extras)) or "no extras"}')
    install_project(settings, constraints)
    step(6, 'check that it runs')
    # A fresh interpreter: a broken binary must not end this one without a word.
    command = [sys.executable, str(Path(__file__).resolve()), '--check-only', '--extras', ','.join(settings.extras)]
    if subprocess.run([*command, *([] if ops == 'cpu' else ['--cuda'])], check=False).returncode != 0:
        raise InstallError('everything is installed but does not run, see above. Try a new environment (another VENV).')
    write_stamp(settings)


def interrupted(number: int, frame: object) -> None:
    """Turn a termination into an exception, so that children are ended and half-built files removed."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line and return its exit status."""
    signal.signal(signal.SIGTERM, interrupted)
    os.environ.setdefault('PIP_PROGRESS_BAR', 'off')  # its bars fill the log
    options, start = parse(), time.monotonic()
    try:
        require_python()
        if options.venv:
            enter_environment(options.venv)
        settings = settings_from(options)
        if options.check_only:
            check(settings)
        elif up_to_date(settings):
            say(f'set-up of {sys.prefix} is up to date')
        else:
            install(settings)
            say(f'set-up done in {clock(time.monotonic() - start)}: {sys.prefix}')
    except InstallError as error:
        say(f'\nFAILED: {error}')
        return 1
    except OSError as error:  # a full disk or a folder that cannot be written, wherever it strikes
        say(f'\nFAILED: {error}\n{advice(str(error), 1)}')
        return 1
    except KeyboardInterrupt:
        say('\ninterrupted; run it again, it goes on where it stopped')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
