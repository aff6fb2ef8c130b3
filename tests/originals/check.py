#!/usr/bin/env python3
"""Run the backbones on the original OpenMMLab distributions, and compare with the maintained ones of this environment.

    python tests/originals/check.py --work DIR

The originals are installed (7 MB) into a folder of their own; torch, numpy and the rest are linked from here. With
``--borrow-ops``, mmdet gets the operators that are compiled here, which the originals' mmcv lacks.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# mmdet 3.3.0 and mmsegmentation 1.2.2 refuse mmcv 2.2.0, the newest one.
SETS = {
    'newest': ('mmengine==0.10.7', 'mmcv-lite==2.2.0', 'mmpretrain==1.2.0'),
    'libraries': ('mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmpretrain==1.2.0', 'mmsegmentation==1.2.2', 'mmdet==3.3.0'),
}
LIBRARIES = ('mmpretrain', 'mmseg', 'mmdet')
OURS = ('mmres2net', 'onedl-')


def link_environment(target: Path) -> None:
    """Link all that is installed here, except mmres2net, the maintained distributions and start-up hooks."""
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


def install(requirements: tuple[str, ...], target: Path, ops: Path | None) -> None:
    """Install the originals alone into a folder, with compiled operators if some are given."""
    if not (target / 'mmengine').is_dir():
        command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', str(target)]
        subprocess.run([*command, *requirements], check=True)
    if ops is not None and not (target / 'mmcv' / ops.name).is_symlink():
        (target / 'mmcv' / ops.name).symlink_to(ops)


def results_with(paths: list[Path], libraries: Iterable[str], *options: str) -> dict[str, Any]:
    """Run :func:`print_results` in a process with this search path."""
    # ROOT first: some distributions install a package of the name tests.
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [ROOT, *paths]))}
    command = [sys.executable, *options, __file__, '--inside', *libraries]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def digest(out: Any) -> str:
    """Return a hash of shapes and bits of tensors."""
    if isinstance(out, list | tuple):
        return hashlib.sha256(''.join(map(digest, out)).encode()).hexdigest()[:16]
    return hashlib.sha256(str(tuple(out.shape)).encode() + out.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


def print_results(libraries: list[str]) -> None:
    """Print versions and digests: of each backbone forward and backward, and of a model of each library."""
    import torch
    from mmengine.config import ConfigDict
    from mmengine.logging import MMLogger
    from mmengine.registry import MODELS, DefaultScope

    from mmres2net.models import ARCHS
    from tests.support.library_models import MODELS as LIBRARY_MODELS

    MMLogger.get_instance('originals', log_level='ERROR')  # init_weights logs every parameter
    results = {}
    for arch, spec in ARCHS.items():
        torch.manual_seed(0)
        kind, size = 'Res2NetDLA' if spec.family == 'dla' else 'Res2Net', 16 if spec.family == 'cifar' else 64
        net = MODELS.build(dict(type=f'mmres2net.{kind}', arch=arch)).double().train()
        features = net(torch.rand(1, 3, size, size, dtype=torch.float64))
        sum(feature.square().mean() for feature in features).backward()
        results[arch] = digest([*features, *(value.grad for value in net.parameters())])
    for name in libraries:
        importlib.import_module(f'{name}.models')
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(name), torch.no_grad():
            model = importlib.import_module(f'{name}.registry').MODELS.build(ConfigDict(LIBRARY_MODELS[name]))
            model.init_weights()
            results[name] = digest(model.eval()(torch.rand(1, 3, 64, 64), mode='tensor'))
    versions = {name: importlib.import_module(name).__version__ for name in ('torch', 'mmengine', 'mmcv', *libraries)}
    print(json.dumps({'versions': versions, 'results': results}))


def main() -> int:
    """Prepare the folders, run, compare; return 1 if something differs."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument('--work', type=Path, help='folder for the originals; kept for the next time')
    flags.add_argument('--borrow-ops', action='store_true', help='let mmdet use the operators compiled here')
    flags.add_argument('--inside', nargs='*', help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.inside is not None:
        print_results(args.inside)
        return 0
    work = args.work.absolute()
    link_environment(work / 'linked')
    ours, faults = results_with([], LIBRARIES), 0
    for name, requirements in SETS.items():
        full = name == 'libraries' and args.borrow_ops
        folder = work / (f'{name}_ops' if full else name)
        ops = next(Path(sysconfig.get_paths()['platlib'], 'mmcv').glob('_ext.*')) if full else None
        install(requirements, folder, ops)
        some = LIBRARIES if full else LIBRARIES[: 1 if name == 'newest' else 2]
        # -S: without the packages of this environment
        theirs = results_with([folder, work / 'linked'], some, '-S')
        differing = [key for key, value in theirs['results'].items() if value != ours['results'][key]]
        count = len(theirs['results'])
        print(f'{folder.name}, {theirs["versions"]}: {count} results, different: {differing or "none"}')
        faults += len(differing)
    return int(faults > 0)


if __name__ == '__main__':
    sys.exit(main())
