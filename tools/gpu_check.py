#!/usr/bin/env python3
"""Check and measure the project on a machine with a GPU in one call; the machine needs no package index.

It installs the wheels of ``tools/gpu_wheels.py`` beside the machine's own torch, compiles mmcv for CUDA, runs the GPU
tests on torchvision's operators and on the compiled ones, trains the demo in several ways, and runs the benchmark. A
stage that fails or takes too long is reported, and the next one begins. ``--out`` gets logs, results and the compiled
wheel, which saves the next call 3 minutes in ``--wheels``.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = '-m pytest -m gpu tests/gpu -q -p no:cacheprovider -n 4 --dist worksteal'
DEMO = '-m mmres2net train demo/faster_rcnn_r2n50 --launcher pytorch --overwrite --work-dir {} {}'
# As torchrun starts one process, which it leaves behind when it is killed itself.
ONE = {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_WORLD_SIZE': '1', 'MASTER_ADDR': 'localhost'}
DEMOS = {'fp32': '', 'fp16': '--amp fp16', 'bf16': '--amp bf16', 'compiled': '--cfg-options compile=True'}
BENCHMARK = '-m benchmarks run --device cuda --turns 5 --seconds 0.2 --allow-load'
CASES = (  # the most important first: what the time does not suffice for is left out
    'inference --size 224x224 --batch 64 --precision bf16',
    'inference --size 800x1216 --precision bf16',
    'step --size 800x1216 --precision tf32',
    'training --size 224x224 --batch 32 --precision bf16',
    'image --size 800x1216 --precision tf32',
    'inference --size 800x1216 --batch 8 --precision bf16',
    'inference --size 224x224 --batch 64 --precision tf32',
)
BUILD = {'MMCV_WITH_OPS': '1', 'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '9.0', 'MAX_JOBS': str(os.cpu_count())}
STAGES = ('tests', 'demo', 'compiled', 'bench')


class Check:
    """The stages of a call, each a command of this Python with a log and a time limit."""

    def __init__(self, out: Path, minutes: float) -> None:
        self.out, self.end, self.path, self.rows = out, time.monotonic() + 60 * minutes, [str(ROOT)], list[str]()
        self.folders = tempfile.TemporaryDirectory(), tempfile.TemporaryDirectory()  # which end with this object
        self.work, self.kept = (Path(folder.name) for folder in self.folders)

    def start(self, name: str, command: str, **more: str) -> tuple[str, subprocess.Popen, float]:
        env = {**os.environ, 'PYTHONPATH': os.pathsep.join(self.path), 'PYTHONUNBUFFERED': '1', **more}
        print(f'{name}: python {command}', flush=True)
        with open(self.kept / f'{name}.log', 'wb') as log:
            options = {'stdout': log, 'stderr': log, 'cwd': ROOT, 'env': env, 'start_new_session': True}
            return name, subprocess.Popen([sys.executable, *command.split()], **options), time.monotonic()

    def finish(self, stage: tuple[str, subprocess.Popen, float], limit: float, show: str = '.') -> bool:
        """Wait so many seconds for a stage, note its last line that matches ``show``, and tell whether it passed."""
        name, process, began = stage
        try:
            status = f'status {process.wait(max(min(limit, self.end - time.monotonic()), 1))}'
        except subprocess.TimeoutExpired:
            status = 'took too long'
        with suppress(ProcessLookupError):  # and all that it started
            os.killpg(process.pid, signal.SIGKILL)
        lines = (self.kept / f'{name}.log').read_text(errors='replace').splitlines()
        last = next((line for line in reversed(lines) if re.search(show, line)), ''.join(lines[-1:])).strip()[:100]
        self.rows.append(f'{name:16} {time.monotonic() - began:4.0f} s  {status}: {last}')
        shutil.make_archive(str(self.out / 'gpu_check'), 'zip', self.kept)
        return status == 'status 0'

    def install(self, wheels: list[Path]) -> None:
        site, files = self.work / f'site{len(self.path)}', ' '.join(map(str, wheels))
        command = f'-m pip install -q --no-index --no-deps --no-compile --target {site} {files}'
        self.finish(self.start(site.name, command), 90)
        self.path.insert(0, str(site))


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument('--out', type=Path, required=True, help='folder of the archive and of the compiled wheel')
    flags.add_argument('--wheels', type=Path, default=ROOT / '.wheels', help='default: %(default)s, if it exists')
    flags.add_argument('--stages', nargs='+', default=STAGES, choices=STAGES, help='default: all')
    flags.add_argument('--minutes', type=float, default=8.8, help='of all stages; default: %(default)s')
    args = flags.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    check, wheels, build = Check(args.out.absolute(), args.minutes), sorted(args.wheels.absolute().glob('*.whl')), None
    compiled = [file for file in wheels if 'mmcv' in file.name and 'none-any' not in file.name]
    if wheels:
        check.install([file for file in wheels if file not in compiled])
    source = next(args.wheels.absolute().glob('*mmcv*.tar.gz'), None)
    if source and 'compiled' in args.stages and not compiled:
        os.environ |= BUILD | dict(os.environ)
        build = check.start('build', f'-m pip wheel --no-deps --no-build-isolation --no-index -w {check.work} {source}')
    check.finish(check.start('doctor', '-m mmres2net doctor --require gpu'), 60, 'right on')
    check.finish(check.start('demo data', '-m mmres2net demo-data'), 30)
    demos = []
    for port, name in enumerate(DEMOS if 'demo' in args.stages else (), 29501):
        command = DEMO.format(check.work / name, DEMOS[name])
        demos.append(check.start(f'demo {name}', command, MASTER_PORT=str(port), **ONE))
    if 'tests' in args.stages:
        check.finish(check.start('tests', PYTEST), 200, 'passed|failed|error')
    for demo in demos:
        check.finish(demo, 240, 'bbox_mAP |rror')
    if build and check.finish(build, 300, 'Created wheel|rror'):
        compiled = [Path(shutil.copy(file, args.out)) for file in check.work.glob('*mmcv*.whl')]
    if compiled and 'compiled' in args.stages:
        check.install(compiled)
        check.finish(check.start('tests compiled', PYTEST), 200, 'passed|failed|error')
    for case in CASES if 'bench' in args.stages else ():
        if check.end - time.monotonic() > 60:
            stage, out = f'bench {case.replace("--", "")}', f'--out {check.kept}/{len(check.rows)}.json'
            check.finish(check.start(stage, f'{BENCHMARK} {case} {out}'), 150)
            print((check.kept / f'{stage}.log').read_text(errors='replace')[-2500:], flush=True)
    print('\n'.join([*check.rows, f'in {args.out}: gpu_check.zip']))
    return int(any('  status 0' not in row for row in check.rows))


if __name__ == '__main__':
    sys.exit(main())
