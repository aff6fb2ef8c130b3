#!/usr/bin/env python3
"""Run the backbones on the original OpenMMLab distributions, and compare with the maintained ones of this environment.

    python tests/originals/check.py --work DIR

Nothing is installed into this environment: the originals go to a folder of their own, everything else (torch, numpy)
is borrowed from here by links, and the maintained distributions are left out. The network is needed once, for 7 MB.

What this shows, and what it does not. The originals' mmcv has no wheel with operators for today's torch, and its
lite wheel has none at all. So mmpretrain and mmseg run as they are. mmdet needs operators on import: with
``--borrow-ops`` it gets those that are compiled here for the maintained mmcv, below the original's Python code.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# mmdet 3.3.0 and mmsegmentation 1.2.2 refuse mmcv 2.2.0, the newest one.
SETS = {
    'newest': ('mmengine==0.10.7', 'mmcv-lite==2.2.0', 'mmpretrain==1.2.0'),
    'hosts': ('mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmpretrain==1.2.0', 'mmsegmentation==1.2.2', 'mmdet==3.3.0'),
}
OURS = ('mmres2net', 'onedl-')


def borrow(target: Path) -> None:
    """Link all that is installed here into a folder, but for us, the maintained distributions and start-up hooks."""
    target.mkdir(parents=True, exist_ok=True)
    left_out = {
        path.parts[0]
        for distribution in importlib.metadata.distributions()
        if distribution.metadata['Name'].lower().startswith(OURS)
        for path in distribution.files or ()
    }
    for place in {sysconfig.get_paths()['purelib'], sysconfig.get_paths()['platlib']}:
        for entry in Path(place).iterdir():
            link = target / entry.name
            if entry.name not in left_out and entry.suffix != '.pth' and not link.is_symlink():
                link.symlink_to(entry)


def fetch(requirements: tuple[str, ...], target: Path, ops: Path | None) -> None:
    """Install the originals alone into a folder, with operators below them if some are given."""
    if not (target / 'mmengine').is_dir():
        command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', str(target)]
        subprocess.run([*command, *requirements], check=True)
    if ops is not None and not (target / 'mmcv' / ops.name).is_symlink():
        (target / 'mmcv' / ops.name).symlink_to(ops)


def ask(paths: list[Path], hosts: list[str], *options: str) -> dict:
    """Run ``inside.py`` and return what it found."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*paths, ROOT]))}
    command = [sys.executable, *options, str(Path(__file__).with_name('inside.py')), *hosts]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, theirs: dict, ours: dict) -> int:
    """Print what ran, and what differs; return the number of differences."""
    print(f'{name}: {", ".join(f"{module} {version}" for module, version in theirs["versions"].items())}')
    unexpected = [owner for owner in theirs['owners'] if owner.startswith(OURS)]
    differing = [key for key, value in theirs['results'].items() if value != ours['results'][key]]
    for title, names in (('a maintained distribution was imported', unexpected), ('differs', differing)):
        print(''.join(f'  FAIL  {title}: {entry}\n' for entry in names), end='')
    equal = len(theirs['results']) - len(differing)
    print(f'  {equal} of {len(theirs["figures"])} results equal those of the maintained libraries to the bit')
    return len(unexpected) + len(differing)


def main() -> int:
    """Prepare the folders, run, compare; return 1 where something differs."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument('--work', type=Path, required=True, help='folder for the originals; kept for the next time')
    flags.add_argument('--borrow-ops', action='store_true', help='let mmdet use the operators compiled here')
    args = flags.parse_args()
    work = args.work.absolute()
    borrow(work / 'borrowed')
    hosts = ['mmpretrain', 'mmseg', 'mmdet']
    ours = ask([], hosts)
    ops = next(Path(sysconfig.get_paths()['platlib'], 'mmcv').glob('_ext.*'))
    faults = 0
    for name, requirements in SETS.items():
        full = name == 'hosts' and args.borrow_ops
        folder = work / (f'{name}_ops' if full else name)
        fetch(requirements, folder, ops if full else None)
        some = hosts if full else hosts[: 1 if name == 'newest' else 2]
        # -S: without the environment's own packages.
        faults += compare(folder.name, ask([folder, work / 'borrowed'], some, '-S'), ours)
    return int(faults > 0)


if __name__ == '__main__':
    sys.exit(main())
