"""``mmres2net doctor``: run all checks, print the faults first, and set the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from mmres2net.doctor import checks
from mmres2net.doctor.checks import IMPORT_NAMES, LIBRARIES, Result
from mmres2net.doctor.probes import PROBES
from mmres2net.environment import installed_of, installed_version, nvidia_driver
from mmres2net.files import writable_file, write_atomic
from mmres2net.flags import parse

ORDER = ('fail', 'warn', 'skip', 'note', 'ok')
# The probes whose failure explains that of another one.
NEEDS = {
    **dict.fromkeys(('torchvision', 'gpu', 'mmengine.runner'), ('torch',)),
    'mmcv.cnn': ('mmengine.runner', 'cv2'),
    **dict.fromkeys(('operators', 'registry'), ('mmcv.cnn', 'torchvision')),
    **dict.fromkeys(LIBRARIES, ('operators', 'registry')),
}
# The child gets this process's search path, so that it imports what the user's programs import.
CHILD = 'import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from mmres2net.doctor.probes import main; main()'
# What an error message contains, and what to do; the first match counts.
REMEDIES = (
    (r'undefined symbol|_ext', 'pip install --force-reinstall --no-deps --no-cache-dir onedl-mmcv'),
    (r'torchvision::nms|torchvision.*attribute', 'reinstall torch and torchvision in one command from one index'),
    (r'libGL|libgthread|libglib', 'pip uninstall -y opencv-python && pip install --no-deps opencv-python-headless'),
    (r'size changed|multiarray|_ARRAY_API|using NumPy 1', 'reinstall this package, or pip install "numpy<2"'),
    (r'is used but incompatible', 'install the version that the message names, or the maintained onedl-* package'),
    (r'this torch has code for', 'install a torch release or build with code for this GPU'),
    (r"No module named '(?!mm)", 'pip install the missing module'),
    (r'', 'reinstall the package that the message names: pip install --force-reinstall --no-deps NAME'),
)


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
        results |= {name: Result(name, 'fail' if error else 'ok', error or found) for name, found, error in answers}
    return [explained(result, results) for result in results.values()]


def explained(result: Result, results: Mapping[str, Result]) -> Result:
    """Return a failed result with its remedy, or as skipped where a probe that it needs failed."""
    if result.status == 'ok':
        return result
    cause = next((need for need in NEEDS.get(result.name, ()) if need in results and results[need].status != 'ok'), '')
    if cause:
        return Result(result.name, 'skip', f'{cause} failed')
    remedy = next(remedy for pattern, remedy in REMEDIES if re.search(pattern, result.detail))
    return Result(result.name, 'fail', ' '.join(result.detail.split())[:400], remedy)


def check_required(found: Mapping[str, str], required: Sequence[str]) -> Iterator[Result]:
    """Compare what the probes found, by name, with the requirements that are not libraries."""
    gpu, operators, driver = found.get('gpu', ''), found.get('operators', ''), nvidia_driver()
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


def all_results(required: Sequence[str]) -> list[Result]:
    """Run all checks; return their results, the worst first."""
    results = [*checks.check_python(), *checks.check_libraries(required), *checks.check_requirements()]
    results += checks.check_machine()
    absent = {name for name in LIBRARIES if not installed_of(IMPORT_NAMES[name])}
    absent |= {'pycocotools.mask'} if installed_version('pycocotools') is None else set()
    results += run_probes([name for name in PROBES if name not in absent])
    results += check_required({result.name: result.detail for result in results if result.status == 'ok'}, required)
    return sorted(results, key=lambda result: ORDER.index(result.status))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and print a line for each, the faults first; return 1 if one failed, else 0.

    Raises:
        UserError: The JSON file cannot be written.
    """
    args = parse('doctor', argv)
    if args.json:
        writable_file(args.json, '--json')
    results = all_results(args.require)
    width = max(len(result.name) for result in results)
    for result in results:
        print(f'{result.status:<4}  {result.name:<{width}}  {result.detail}')
        if result.remedy:
            print(f'{"":{width + 6}}  -> {result.remedy}')
    if args.json:
        write_atomic(args.json, json.dumps([result._asdict() for result in results], indent=1) + '\n')
    return int(any(result.status == 'fail' for result in results))
