"""Which distribution owns which import name, and whether those that are there go together.

Only metadata and source texts are read; nothing is imported.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmres2net.doctor.result import PACKAGE, Result, installed, numbers, wanted

OLDEST, NEWEST_TESTED = (3, 10), (3, 13)
# The distributions that own an import name: the maintained one, then the originals.
OWNERS = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-full', 'mmcv-lite'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
CORE = ('mmengine', 'mmcv')
HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
# The headless one first: it needs no libGL.
OPENCV = ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python', 'opencv-contrib-python-headless')


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Result]:
    """Compare the version with those that the project supports."""
    text = f'{".".join(map(str, version))} at {sys.executable}'
    span = f'3.{OLDEST[1]} to 3.{NEWEST_TESTED[1]}'
    if version[:2] < OLDEST:
        yield Result('Python', 'fail', f'{text}: too old', f'use Python {span}')
    elif version[:2] > NEWEST_TESTED:
        remedy = f'where something has no wheel or does not compile, use Python {span}'
        yield Result('Python', 'warn', f'{text}: newer than the tested ones', remedy)
    else:
        yield Result('Python', 'ok', f'{text}, {platform.system()} {platform.machine()}')


def owners_of(name: str) -> dict[str, str]:
    """Return the installed distributions that own an import name, with their versions."""
    # Both ways: Python 3.10 knows only those that ship a top_level.txt, and a table knows no new fork.
    known = (*OWNERS.get(name, ()), *(OPENCV if name == 'cv2' else ()))
    found = {*importlib.metadata.packages_distributions().get(name, ()), *known}
    return {owner: version for owner in sorted(found) if (version := installed(owner)) is not None}


def check_owners(required: frozenset[str] = frozenset()) -> Iterator[Result]:
    """Check that each import name of OpenMMLab has one owner, and lies where that one put it.

    Args:
        required: Hosts whose absence is a failure.
    """
    for name in OWNERS:
        owners = owners_of(name)
        origin = origin_of(name)
        text = ', '.join(f'{owner} {version}' for owner, version in owners.items())
        if len(owners) > 1:
            yield Result(
                name,
                'fail',
                f'owned by {" and ".join(f"{owner} {version}" for owner, version in owners.items())}: the files of one'
                ' lie over those of the other',
                _reinstall(name, owners),
            )
        elif owners and origin is None:
            yield Result(
                name,
                'fail',
                f'{text} is installed, but its files are gone, as when another owner of the name was uninstalled',
                f'pip install --force-reinstall --no-deps {text.replace(" ", "==")}',
            )
        elif owners:
            yield _check_place(name, *owners, text=text, origin=origin)
        elif origin is not None:
            yield Result(name, 'warn', f'imported from {origin}, which no distribution owns', _unshadow(origin, name))
        elif name in CORE or name in required:
            yield Result(name, 'fail', 'not installed', _install(name))
        else:
            yield Result(name, 'note', f'not installed; its configs do not run here without: {_install(name)}')


def origin_of(name: str) -> Path | None:
    """Return the file that an import of a top-level name would read first; None where nothing is found."""
    # By the finders, for importlib.util.find_spec would give what this process has already loaded.
    specs = (finder.find_spec(name, None) for finder in sys.meta_path)
    spec = next((spec for spec in specs if spec is not None), None)
    return Path(spec.origin) if spec is not None and spec.origin else None


def _check_place(name: str, owner: str, *, text: str, origin: Path | None) -> Result:
    distribution = importlib.metadata.distribution(owner)
    link = json.loads(distribution.read_text('direct_url.json') or '{}')
    place = Path(str(distribution.locate_file(name)))
    if link.get('dir_info', {}).get('editable') or origin is None or origin.parent.resolve() == place.resolve():
        return Result(name, 'ok', text)
    detail = f'{text} lies in {place}, but {origin} is imported in its place'
    return Result(name, 'warn', detail, _unshadow(origin, name))


def _unshadow(origin: Path, name: str) -> str:
    return f'take {origin.parent.parent} off PYTHONPATH, or start elsewhere, if that {name} is not meant'


def originals() -> bool:
    """Return whether this environment has the original mmengine, so that advice must not mix the sets."""
    owners = owners_of('mmengine')
    return bool(owners) and OWNERS['mmengine'][0] not in owners


def _install(name: str) -> str:
    if name == 'mmcv':
        return compile_mmcv()
    return f'pip install "{OWNERS[name][1] if originals() else wanted(OWNERS[name][0])}"'


def compile_mmcv(variables: str = '', make: str = 'make setup') -> str:
    """Return how to get an mmcv with its operators, compiled for the torch that is there.

    Args:
        variables: What has to stand in front of the command, such as ``FORCE_CUDA=1``.
        make: What does the same in a checkout.
    """
    # Without isolation, for an isolated build sees no torch and leaves the ops out; without cache, for the cached wheel
    # may be of another torch.
    command = f'{variables} pip install --no-cache-dir --no-build-isolation --force-reinstall --no-deps'.strip()
    kept = 'mmcv' if originals() else OWNERS['mmcv'][0]
    rivals = [owner for owner in owners_of('mmcv') if owner != kept]
    drop = f'pip uninstall -y {" ".join(rivals)} && ' if rivals else ''
    if originals():
        version = next(iter(owners_of('mmcv').values()), '')
        exact = f'"mmcv=={version}"' if version else 'mmcv'
        return f'{drop}MMCV_WITH_OPS=1 {command} {exact}, or the maintained set in a new environment'
    return f'{drop}{command} "{wanted(kept)}" (in a checkout: {make})'


def _reinstall(name: str, owners: Iterable[str]) -> str:
    new = _install(name)
    if new.startswith('pip uninstall'):
        new = new.partition(' && ')[2]
    return f'pip uninstall -y {" ".join(owners)} && {new}'


def check_sets() -> Iterator[Result]:
    """Check that maintained and original distributions are not mixed; say which set it is."""
    owners = {name: found for name in OWNERS if len(found := owners_of(name)) == 1}
    maintained = sorted(owner for name, found in owners.items() for owner in found if owner == OWNERS[name][0])
    others = sorted(owner for name, found in owners.items() for owner in found if owner != OWNERS[name][0])
    if maintained and others:
        yield Result(
            'one set',
            'warn',
            f'two sets are mixed: {", ".join(others)} beside {", ".join(maintained)}; nobody tests them together',
            f'pip uninstall -y {" ".join(others)}, then {PACKAGE} again with its extras; or a new environment',
        )
    elif owners:
        kind = 'maintained' if maintained else 'original'
        yield Result('one set', 'ok', f'all OpenMMLab distributions are the {kind} ones')


def check_ceilings() -> Iterator[Result]:
    """Predict what the installed hosts' own version checks will say on import, from their source."""
    from packaging.version import Version

    versions = {name: next(iter(owners_of(name).values()), '') for name in CORE}
    for host in HOSTS:
        origin = origin_of(host)
        limits = limits_in(origin) if origin is not None else {}
        for core in CORE:
            low, high = (limits.get(f'{core}_{end}', '') for end in ('min', 'max'))
            if not versions[core] or not (low and high):
                continue
            span = f'{core} >={low},<{high}'
            if not Version(low) <= Version(versions[core]) < Version(high):
                remedy = f'install {span}, or the maintained {wanted(OWNERS[host][0])}, which has no such ceiling'
                yield Result(f'{host} takes {core}', 'fail', f'{versions[core]}; {host} asserts {span}', remedy)
            else:
                yield Result(f'{host} takes {core}', 'ok', f'{versions[core]} is in {span}')


def limits_in(source: Path) -> dict[str, str]:
    """Return the version limits that a host's ``__init__.py`` states, as ``{'mmcv_max': '2.2.0', ...}``.

    The original mmdet and mmpretrain write ``mmcv_maximum_version = '...'``, the original mmseg ``MMCV_MAX = '...'``.
    """
    try:
        body = ast.parse(source.read_text(encoding='utf-8')).body
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}  # its own probe says what is wrong with it
    limits = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            words = node.targets[0].id.lower().removesuffix('_version').split('_')
            if len(words) == 2 and words[1][:3] in ('min', 'max') and isinstance(node.value, ast.Constant):
                limits[f'{words[0]}_{words[1][:3]}'] = str(node.value.value)
    return limits


def check_requirements() -> Iterator[Result]:
    """Compare what is installed with the ranges in our own metadata; extras count where they are installed."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = 'pip install -e . in the checkout (--no-deps, where the original OpenMMLab distributions shall stay)'
        yield Result('version ranges', 'warn', f'{PACKAGE} itself is not installed, so it states none', remedy)
        return
    ours_elsewhere = {owners[0] for owners in OWNERS.values()}  # their absence is `check_owners`' matter
    good = 0
    for requirement in (Requirement(line) for line in lines):
        version = installed(requirement.name)
        optional = requirement.marker is not None and not requirement.marker.evaluate({'extra': ''})
        text = str(requirement).split(';')[0].strip()
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            good += 1
        elif version is not None:
            detail = f'{version} is outside {requirement.specifier}'
            yield Result(requirement.name, 'fail', detail, f'pip install "{text}"')
        elif not optional and requirement.name not in ours_elsewhere:
            yield Result(requirement.name, 'fail', 'not installed', f'pip install "{text}"')
    yield Result('version ranges', 'ok', f'{good} distributions are within the ranges that {PACKAGE} states')


def check_pair() -> Iterator[Result]:
    """Check that torchvision was built for this torch: it names one version of it, and both carry one build tag."""
    torch, vision = installed('torch'), installed('torchvision')
    if torch is None or vision is None:
        return
    lines = importlib.metadata.requires('torchvision') or []
    pinned = next((match[1] for line in lines if (match := re.match(r'torch ?\(?==\s*([\w.+]+)', line))), '')
    builds = [version.partition('+')[2] for version in (torch, vision)]
    text = f'torch {torch}, torchvision {vision}'
    if pinned and numbers(pinned) != numbers(torch):
        remedy = f'pip install "torch=={torch}" torchvision, or "torch=={pinned}"; compile mmcv anew after a new torch'
        yield Result('torch pair', 'fail', f'{text}: this torchvision is built for torch {pinned}', remedy)
    elif all(builds) and builds[0] != builds[1]:
        remedy = 'pip uninstall -y torch torchvision, then install both from one index'
        yield Result('torch pair', 'fail', f'{text}: builds of different kinds', remedy)
    else:
        yield Result('torch pair', 'ok', text)


def check_opencv() -> Iterator[Result]:
    """Check that one distribution owns ``cv2``: two of one version are harmless until one of them is removed."""
    owners = owners_of('cv2')
    text = ', '.join(f'{owner} {version}' for owner, version in owners.items())
    again = 'pip install --force-reinstall --no-deps opencv-python-headless'
    remedy = f'pip uninstall -y {" ".join(owners)} && {again}' if owners else again
    if len(owners) <= 1:
        return
    if len(set(owners.values())) > 1:
        yield Result('OpenCV owner', 'fail', f'cv2 is owned by two versions: {text}', remedy)
    else:
        yield Result('OpenCV owner', 'warn', f'cv2 has two owners: {text}; to uninstall one breaks the other', remedy)


def check_pkg_resources() -> Iterator[Result]:
    """The original mmengine looks distributions up by ``pkg_resources``, which setuptools 82 no longer has."""
    owners = owners_of('mmengine')
    if not owners or OWNERS['mmengine'][0] in owners:
        return
    text = f'setuptools {installed("setuptools")}'
    if origin_of('pkg_resources') is None:
        detail = f'{text} has no pkg_resources; the original mmengine needs it for configs that inherit from HOST::NAME'
        yield Result('pkg_resources', 'fail', detail, 'pip install "setuptools<82"')
    else:
        yield Result('pkg_resources', 'ok', f'{text} has it')
