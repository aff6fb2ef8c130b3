"""Where the shipped configs are, in a checkout as well as in an installed wheel.

``python -m mmres2net.paths`` prints the folder. Only the standard library is imported, so that this works at once.
"""

import argparse
import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BASES = '_base_'  # fragments that configs inherit from; they do not run on their own
OWN = 'mmres2net::'


def config_dir() -> Path:
    """Return the folder of the shipped configs; a FileNotFoundError if the package was copied without them."""
    # The wheel first: a folder `configs` beside an installed package would be someone else's.
    places = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f'mmres2net has no configs at {places[0]} (wheel) or {places[1]} (checkout); install the wheel, or the checkout'
        ' with pip install -e'
    )


def list_configs() -> list[str]:
    """Return the runnable configs, relative to `config_dir`, sorted, with forward slashes."""
    root = config_dir()
    names = (path.relative_to(root) for path in root.rglob('*.py'))
    return sorted(name.as_posix() for name in names if _BASES not in name.parts)


def find_config(name: str | Path) -> Path:
    """Return the config file that a name means.

    Args:
        name: a path that exists, a name relative to the shipped configs, with or without ``.py`` and ``mmres2net::``,
            or ``LIBRARY::NAME`` for a config that came with mmdet, mmseg, mmpretrain or another package of this layout;
            there the folder may be left out.

    Raises:
        FileNotFoundError: neither exists; the message has the names that come close.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).exists():
        kind = 'a folder' if Path(name).is_dir() else 'a pipe or a device'
        raise FileNotFoundError(f'{name} is {kind}; name a config file')
    name = str(name).removeprefix(OWN)
    if '::' in name:
        return _find_in_library(*name.split('::', 1))
    shipped = config_dir() / name
    # Not with_suffix(): a name such as `r2n50_lr0.02` has a dot of its own.
    for candidate in (shipped, shipped.with_name(shipped.name + '.py')):
        if candidate.is_file():
            return candidate
    known = list_configs()
    matches = _close(name, known)
    hint = f'close matches: {", ".join(matches)}' if matches else f'the shipped ones are: {", ".join(known)}'
    raise FileNotFoundError(f'no config {name!r}, neither as a path nor in {config_dir()}; {hint}')


def _find_in_library(library: str, name: str) -> Path:
    # MMEngine knows this notation too, but reads every metafile first, and installs what it thinks is missing.
    try:
        spec = importlib.util.find_spec(library) if library.isidentifier() else None
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    places = [Path(place) / '.mim' / 'configs' for place in (spec and spec.submodule_search_locations) or ()]
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        raise FileNotFoundError(
            f'{library}::{name}: no package {library!r} with configs is installed; mmdet, mmseg and mmpretrain '
            'have some (pip install onedl-mmdetection onedl-mmsegmentation onedl-mmpretrain)'
        )
    wanted = name if name.endswith('.py') else f'{name}.py'
    if (root / wanted).is_file():
        return root / wanted
    known = [path.relative_to(root).as_posix() for path in sorted(root.rglob('*.py')) if _BASES not in path.parts]
    same = [entry for entry in known if Path(entry).name == wanted]
    if len(same) == 1:
        return root / same[0]
    matches = [f'{library}::{entry}' for entry in same or _close(wanted, known)]
    hint = f'close matches: {", ".join(matches)}' if matches else 'nothing comes close'
    raise FileNotFoundError(f'{library}::{name}: no such config in {root}; {hint}')


def _close(name: str, known: list[str]) -> list[str]:
    """Return up to eight of ``known`` whose file names are like that of ``name``."""
    # The libraries write both `r50-d8` and `r50_fpn`, which is hard to remember.
    wanted = Path(name).name.removesuffix('.py').replace('-', '_')
    stems = {entry: Path(entry).name.removesuffix('.py').replace('-', '_') for entry in known}
    close = difflib.get_close_matches(wanted, stems.values(), n=5, cutoff=0.6)
    return [entry for entry, stem in stems.items() if stem in close or (wanted and wanted in stem)][:8]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the folder of the shipped configs, or with ``--list`` their names."""
    flags = argparse.ArgumentParser(prog='mmres2net configs', description='Print the folder of the shipped configs.')
    flags.add_argument('--list', action='store_true', help='list the configs in it')
    print('\n'.join(list_configs()) if flags.parse_args(argv).list else config_dir())


if __name__ == '__main__':
    main()
