#!/usr/bin/env python3
"""Install mmres2net and all that it needs into a virtual environment, and check that it runs.

`make setup` runs this. It needs Python 3.10 or newer with pip and venv; with --ops or --cuda also a C++ compiler. uv
installs the versions of requirements.txt and verifies their hashes. A torch that the environment already has is kept if
it is in the range of pyproject.toml.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if sys.version_info < (3, 10):  # noqa: UP036 - a message instead of a traceback
    sys.exit(f'Python {platform.python_version()} is too old; choose 3.10 or newer: make setup PYTHON=python3.12')
sys.path.insert(0, str(ROOT))
from mmres2net.environment import OPENMMLAB, available_memory, granted_cores  # noqa: E402
from mmres2net.errors import UserError  # noqa: E402
from mmres2net.files import locked, require_space  # noqa: E402

LIBRARIES = {'seg': 'mmseg', 'cls': 'mmpretrain'}
EXTRAS = (*LIBRARIES, 'export', 'cam', 'sal', 'cluster', 'ray', 'serve', 'all', 'dev')
DISK = 7 * 10**9  # the environment takes 5.7 GB, unfinished downloads up to 1 GB
JOB_MEMORY = 2 * 10**9  # of one compiler on mmcv's largest files
TOO_NEW_TO_COMPILE = (2, 14)  # torch needs C++20 from here on; mmcv's build asks for C++17
# Packages whose versions a build of torch fixes; another build fixes others.
TORCH_PARTS = 'torch|triton|nvidia-|cuda-|sympy'
# Each package with its version and hashes.
PINS = re.findall(r'^\S+==.*(?:\n +--hash.*)*', (ROOT / 'requirements.txt').read_text(), re.MULTILINE)
VERSIONS = dict(pin.split()[0].split('==') for pin in PINS)
TORCH_RANGE = re.findall(r"'torch>=([\d.]+),<([\d.]+)'", (ROOT / 'pyproject.toml').read_text())[0]


class Environment:
    """A virtual environment, and the commands that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / '.setup'
        self.python, self.uv = str(folder / 'bin' / 'python'), str(folder / 'bin' / 'uv')
        # Compiled here, since whoever cannot write into the environment would compile 5,000 modules at every start.
        self.variables = {**os.environ, 'VIRTUAL_ENV': str(folder), 'UV_COMPILE_BYTECODE': '1'}

    def run(self, *command: str, **variables: str) -> None:
        """Run a command from the root of the repository, where uv reads pyproject.toml.

        Raises:
            UserError: It failed. Its own message is already on the screen.
        """
        status = subprocess.run(command, env={**self.variables, **variables}, cwd=ROOT).returncode
        if status != 0:
            raise UserError(f'status {status} of: {" ".join(command)}; see above. It is safe to run this again')

    def ask(self, *command: str) -> str:
        """Return what a command prints; nothing if there is no such command."""
        try:
            return subprocess.run(command, env=self.variables, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
        except FileNotFoundError:
            return ''

    def constraints(self, start: str = '', *, without: str = '(?!)', also: str = '') -> str:
        """Write the pins that start with ``start`` to a file, and return its name."""
        path = self.state / 'constraints.txt'
        pins = [pin for pin in PINS if pin.startswith(start) and not re.match(without, pin)]
        path.write_text('\n'.join([*pins, also]))
        return str(path)

    def create(self) -> None:
        """Create the environment and install uv, unless they exist; give uv the index that pip is set up with."""
        if not Path(self.python).exists():
            if importlib.util.find_spec('ensurepip') is None:
                raise UserError(f'{sys.executable} cannot create environments; on Debian: apt-get install python3-venv')
            self.run(sys.executable, '-m', 'venv', str(self.folder))
        if not self.ask(self.python, '-m', 'pip', '--version'):  # made by another tool, or cut off
            self.run(self.python, '-m', 'ensurepip')
        settings = self.ask(self.python, '-m', 'pip', 'config', 'list')
        for option, variable in (('index-url', 'UV_DEFAULT_INDEX'), ('cert', 'SSL_CERT_FILE')):
            for value in re.findall(rf"^\S+\.{option}='(.+)'$", settings, re.MULTILINE)[-1:]:
                self.variables.setdefault(variable, value)
        if self.ask(self.uv, '--version').split()[1:2] != [VERSIONS['uv']]:
            pin = self.constraints('uv==')
            self.run(self.python, '-m', 'pip', 'install', '-q', '--no-deps', '--require-hashes', '-r', pin)

    def torch(self) -> str:
        """Return the version of the installed torch, or nothing.

        Raises:
            UserError: Original OpenMMLab packages are installed.
        """
        found = dict(re.findall(r'^([\w.-]+)==(\S+)', self.ask(self.uv, 'pip', 'freeze', '-q'), re.MULTILINE))
        originals = [name for names in OPENMMLAB.values() for name in names[1:] if name in found]
        if originals:
            raise UserError(
                f'{self.folder} holds {", ".join(originals)}, which install the same modules as the onedl-* packages; '
                'uninstall them, or use another environment: make setup VENV=.venv'
            )
        return found.get('torch', '')


def numbers(version: str) -> tuple[int, ...]:
    """Return major and minor version: (2, 11) of 2.11.0+cu130."""
    return tuple(int(part) for part in re.findall(r'\d+', version)[:2])


def install(env: Environment, extras: list[str], *, editable: bool, torch_backend: str) -> None:
    """Install the package and its dependencies; uv changes nothing where they are there."""
    have, (low, high) = env.torch(), TORCH_RANGE
    arguments = ['-c', env.constraints()]
    if torch_backend:
        wanted = [f'{name}=={VERSIONS[name]}' for name in ('torch', 'torchvision')]
        arguments = ['-c', env.constraints(without=TORCH_PARTS), '--torch-backend', torch_backend, *wanted]
        if have and not have.endswith(f'+{torch_backend}') and not (torch_backend == 'auto' and '+' in have):
            arguments += ['--reinstall-package', 'torch', '--reinstall-package', 'torchvision']
    elif have != VERSIONS['torch'] and numbers(low) <= numbers(have) < numbers(high):
        print(f'torch {have} is kept', flush=True)
        arguments = ['-c', env.constraints(without=TORCH_PARTS, also=f'torch=={have}')]
    if not have:
        require_space({env.folder: DISK}, 'make setup VENV=FOLDER')
    arguments += ['-e'] if editable else ['--reinstall-package', 'mmres2net']
    env.run(env.uv, 'pip', 'install', *arguments, f'{ROOT}[{",".join(extras)}]')


def compile_operators(env: Environment, cuda: bool) -> None:
    """Build mmcv with its own operators and install it; uv keeps the wheel for the next time.

    Raises:
        UserError: The compiler or a header is missing, or this torch is too new for mmcv.
    """
    code = 'import sysconfig, torch; print(torch.__version__, torch.cuda.is_available(), sysconfig.get_path("include"))'
    torch, gpu, include = env.ask(env.python, '-c', code).strip().split(' ', 2)
    cuda, home = cuda or gpu == 'True', os.environ.get('CUDA_HOME', '/usr/local/cuda')
    if numbers(torch) >= TOO_NEW_TO_COMPILE:
        raise UserError(f'mmcv does not compile with torch {torch}; set up without OPS and CUDA, or use an older torch')
    for found, what in (
        (shutil.which(os.environ.get('CXX', 'c++').split()[0]), 'a C++ compiler; on Debian: apt-get install g++'),
        (Path(include, 'Python.h').exists(), 'Python.h; on Debian: apt-get install python3-dev'),
        (not cuda or shutil.which('nvcc') or Path(home, 'bin/nvcc').exists(), 'nvcc; install CUDA or set CUDA_HOME'),
    ):
        if not found:
            raise UserError(f'compiling mmcv needs {what}')
    jobs = max(1, min(int(granted_cores()), (available_memory() or JOB_MEMORY) // JOB_MEMORY))
    variables = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': str(int(cuda)), 'RUST_LOG': 'uv_build_frontend=debug'}
    variables['MAX_JOBS'] = os.environ.get('MAX_JOBS') or str(jobs)
    variables['PATH'] = f'{env.folder / "bin"}{os.pathsep}{os.environ["PATH"]}'  # for ninja
    pins = ('-c', env.constraints(without=TORCH_PARTS))
    env.run(env.uv, 'pip', 'install', *pins, 'setuptools', 'wheel', 'ninja', 'psutil')
    print(f'compiling mmcv for {"CUDA" if cuda else "the CPU"}, {variables["MAX_JOBS"]} files at a time', flush=True)
    # Neither these variables nor the torch are in the key of uv's cache; this setting, which mmcv ignores, is.
    key = '-'.join((torch, 'cuda', os.environ.get('TORCH_CUDA_ARCH_LIST', '')) if cuda else (torch, 'cpu'))
    unisolated = ('--no-build-isolation-package', 'onedl-mmcv', '--config-settings-package', f'onedl-mmcv:ops={key}')
    arguments = (*pins, *unisolated, '--no-deps', '--reinstall-package', 'onedl-mmcv', 'onedl-mmcv')
    env.run(env.uv, 'pip', 'install', *arguments, **variables)
    if cuda and 'not' in env.ask(env.python, '-c', 'import mmcv.ops as ops; print(ops.get_compiling_cuda_version())'):
        raise UserError('mmcv was compiled without CUDA operators; its build did not find CUDA')


def main() -> int:
    """Run the command line and return its exit status."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument('--venv', type=Path, default=Path('.venv'), help='environment; created if it does not exist')
    flags.add_argument('--extras', nargs='+', choices=EXTRAS, default=['all'], metavar='NAME', help=', '.join(EXTRAS))
    flags.add_argument('--no-editable', action='store_true', help='copy the package instead of linking the checkout')
    flags.add_argument('--ops', action='store_true', help="compile mmcv's operators, for CUDA if torch sees a GPU")
    flags.add_argument('--cuda', action='store_true', help='as --ops, for CUDA even if no GPU is visible')
    flags.add_argument('--torch-backend', default='', help="build of torch from PyTorch's index: cpu, cu130, auto, ...")
    args = flags.parse_args()
    env, start = Environment(args.venv.expanduser().absolute()), time.monotonic()
    required = ['mmdet'] + [name for extra, name in LIBRARIES.items() if {extra, 'all'} & set(args.extras)]
    required += ['compiled-ops'] * (args.ops or args.cuda)
    try:
        env.state.mkdir(parents=True, exist_ok=True)
        with locked(env.state, f'another set-up is working in {args.venv}; waiting for it', wait=True):
            env.create()
            install(env, args.extras, editable=not args.no_editable, torch_backend=args.torch_backend)
            facts = env.ask(env.uv, 'pip', 'freeze', '-q') + f'{args} {os.environ.get("TORCH_CUDA_ARCH_LIST")}'
            passed, state = env.state / 'passed.txt', hashlib.sha256(facts.encode()).hexdigest()
            if not passed.exists() or passed.read_text() != state:
                if args.ops or args.cuda:
                    compile_operators(env, args.cuda)
                env.run(str(env.folder / 'bin' / 'mmres2net'), 'doctor', '--require', *required)
                passed.write_text(state)
    except (UserError, OSError) as error:
        print(f'\nset-up failed: {error}', file=sys.stderr)
        return 1
    print(f'{args.venv} is ready after {time.monotonic() - start:.0f} s', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
