"""``mmres2net doctor``: run all checks, print the faults first, and set the exit status.

Packages are checked by their metadata. What has to import them, see :mod:`mmres2net.doctor.probes`, runs in a child.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mmres2net import environment as env
from mmres2net.doctor.probes import PROBES
from mmres2net.flags import parse

ORDER = ('fail', 'warn', 'skip', 'note', 'ok')
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
IMPORT_NAMES = {'cv2': env.OPENCV, **env.OPENMMLAB}
GB = 10**9
# The child gets this process's search path, so that it imports what the user's programs import.
CHILD = 'import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from mmres2net.doctor.probes import main; main()'
# What an error message contains, and what to do; the first match counts.
REMEDIES = (
    (r'undefined symbol|_ext', 'pip install --force-reinstall --no-deps --no-cache-dir onedl-mmcv'),
    (r'torchvision::nms|torchvision.*attribute', 'reinstall torch and torchvision in one command from one index'),
    (r'libGL|libgthread|libglib', 'pip uninstall -y opencv-python && pip install --no-deps opencv-python-headless'),
    (r'size changed|multiarray|_ARRAY_API|using NumPy 1', 'reinstall this package, or pip install "numpy<2"'),
    (r'is used but incompatible', 'install the version that the message names, or the maintained onedl-* package'),
    (r'no kernel image', 'install a torch release or build with code for this GPU'),
    (r"No module named '(?!mm)", 'pip install the missing module'),
    (r'', 'reinstall the package that the message names: pip install --force-reinstall --no-deps NAME'),
)


class Result(NamedTuple):
    """What was checked; ``fail``, ``warn``, ``skip``, ``note`` or ``ok``; what was found; what to do about it."""

    name: str
    status: str
    detail: str
    remedy: str = ''


def check_libraries(required: Sequence[str] = ()) -> Iterator[Result]:
    """Check that OpenMMLab's libraries and OpenCV have one distribution each, and that OpenMMLab's are of one family.

    The absence of ``required`` libraries is a failure; that of mmengine, mmcv and OpenCV always is.
    """
    original = []
    for module, distributions in IMPORT_NAMES.items():
        found = env.installed_of(distributions)
        text = ' and '.join(f'{name} {version}' for name, version in found.items())
        install = f'pip install "{env.requirement_on(distributions[0])}"'
        if len(found) > 1:
            # Two OpenCV packages of one version have the same files, until one is uninstalled.
            status = 'warn' if module == 'cv2' and len(set(found.values())) == 1 else 'fail'
            remedy = f'pip uninstall -y {" ".join(found)} && {install}'
            yield Result(module, status, f'{text} both install {module}', remedy)
        elif found and importlib.util.find_spec(module) is None:
            yield Result(module, 'fail', f'the files of {text} are missing', f'{install} --force-reinstall')
        elif not found:
            missing = module in required or module not in LIBRARIES
            yield Result(module, 'fail' if missing else 'note', 'not installed', install)
        original += [name for name in found if module != 'cv2' and name != distributions[0]]
    if original and any(env.installed_version(distributions[0]) for distributions in env.OPENMMLAB.values()):
        remedy = f'pip uninstall -y {" ".join(original)}, then install {env.PACKAGE} with its extras again'
        yield Result('OpenMMLab', 'fail', f'original {", ".join(original)} beside maintained onedl-* packages', remedy)


def check_requirements() -> Iterator[Result]:
    """Check the requirements of the package, of torchvision and of OpenMMLab's libraries; theirs are but warnings."""
    from packaging.requirements import Requirement

    others = [name for group in env.OPENMMLAB.values() for name in env.installed_of(group)]
    for owner in (env.PACKAGE, 'torchvision', *others):
        for wanted in map(Requirement, env.requirements_of(owner)):
            version = env.installed_version(wanted.name)
            optional = wanted.marker is not None and not wanted.marker.evaluate({'extra': ''})
            replaced = any(env.installed_of(group) for group in IMPORT_NAMES.values() if wanted.name in group)
            if (optional and owner != env.PACKAGE) or (version is None and (optional or replaced)):
                continue
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                text = str(wanted).partition(';')[0].strip()
                status = 'fail' if owner in (env.PACKAGE, 'torchvision') else 'warn'
                detail = f'{owner} requires {text}; installed: {version or "none"}'
                yield Result(wanted.name, status, detail, f'pip install "{text}"')


def check_machine() -> Iterator[Result]:
    """Check memory, threads and disk space."""
    memory, cores, threads = env.available_memory(), env.granted_cores(), os.environ.get('OMP_NUM_THREADS', '')
    if memory is not None and memory < 4 * GB:
        detail = f'{memory / GB:.1f} GB available; training with two loader workers needs about 4 GB'
        yield Result('memory', 'warn', detail, 'stop other programs, or use smaller batches or fewer num_workers')
    if (int(threads) if threads.isdigit() else env.visible_cores()) > cores:
        detail = f'{cores:g} of {env.visible_cores()} cores granted, OMP_NUM_THREADS={threads or "(not set)"}'
        yield Result('cores', 'warn', detail, f'export OMP_NUM_THREADS={max(1, int(cores))}')
    if (disk := env.free_disk('work_dirs')) < 3 * GB:
        detail = f'{disk / GB:.1f} GB free; a run keeps up to 3 GB of checkpoints'
        yield Result('disk', 'warn', detail, 'choose another disk with --work-dir')


def run_probes(names: Sequence[str], time_limit: float = 120.0) -> list[Result]:
    """Run probes of :mod:`mmres2net.doctor.probes` in a child process; after a crash, the rest in another one."""
    results: dict[str, Result] = {}
    while left := [name for name in names if name not in results]:
        command = [sys.executable, '-c', CHILD, json.dumps(sys.path), *left]
        try:
            done = subprocess.run(command, capture_output=True, timeout=time_limit, check=False)
            out, ending = done.stdout, f'Python ended with status {done.returncode}: {done.stderr[-200:]!r}'
        except subprocess.TimeoutExpired as late:
            out, ending = late.stdout or b'', f'no answer within {time_limit:.0f} s'
        answers = [json.loads(line) for line in out.decode().splitlines()] or [(left[0], '', ending)]
        for name, found, error in answers:
            results[name] = _explained(name, found, error, results.values())
    return list(results.values())


def _explained(name: str, found: str, error: str, earlier: Iterable[Result]) -> Result:
    """Return the result of a probe, with the remedy of its error, or as skipped where an earlier one had that error."""
    error = ' '.join(error.split())[:400]
    if same := next((one.name for one in earlier if error and one.detail == error), ''):
        return Result(name, 'skip', f'{same} failed')
    remedy = next(remedy for pattern, remedy in REMEDIES if re.search(pattern, error))
    return Result(name, 'fail', error, remedy) if error else Result(name, 'ok', found)


def check_required(found: Mapping[str, str], required: Sequence[str]) -> Iterator[Result]:
    """Compare what the probes found, by name, with the requirements that are not libraries."""
    gpu, operators, driver = found.get('gpu', ''), found.get('operators', ''), env.nvidia_driver()
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', '0') in ('', '-1')
    if 'cuda' in required and (gpu.endswith('CUDA None') or 'CUDA not available' in operators):
        remedy = 'install a torch built for CUDA, and compile mmcv with FORCE_CUDA=1'
        yield Result('cuda', 'fail', 'torch, or the compiled operators of mmcv, are for the CPU only', remedy)
    if gpu.startswith('none') and ('gpu' in required or (driver and not hidden)):
        remedy = 'install a driver that supports this CUDA, or a torch built for CUDA; in Docker: --gpus all'
        status = 'fail' if 'gpu' in required else 'warn'
        yield Result('gpu', status, f'torch sees no GPU; NVIDIA driver: {driver or "none"}', remedy)
    if 'compiled-ops' in required and not operators.startswith('compiled'):
        remedy = 'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --force-reinstall onedl-mmcv'
        yield Result('compiled-ops', 'fail', 'mmcv has no compiled operators that work', remedy)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and print a line for each, the faults first; return 1 if one failed, else 0."""
    required = parse('doctor', argv).require
    results = [*check_libraries(required), *check_requirements(), *check_machine()]
    absent = {name for name in LIBRARIES if not env.installed_of(IMPORT_NAMES[name])}
    absent |= {'pycocotools.mask'} if env.installed_version('pycocotools') is None else set()
    results += run_probes([name for name in PROBES if name not in absent])
    results += check_required({result.name: result.detail for result in results if result.status == 'ok'}, required)
    width = max(len(result.name) for result in results)
    for result in sorted(results, key=lambda result: ORDER.index(result.status)):
        print(f'{result.status:<4}  {result.name:<{width}}  {result.detail}')
        if result.remedy:
            print(f'{"":{width + 6}}  -> {result.remedy}')
    return int(any(result.status == 'fail' for result in results))
