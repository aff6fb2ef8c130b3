"""Where the shipped configs are, in a checkout as well as in an installed wheel.

``python -m mmres2net.paths`` prints the folder. Only the standard library is imported, so that this works at once.
"""

import argparse
import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
OWN = 'mmres2net::'


def config_dir() -> Path:
    """Return the folder of the shipped configs; a FileNotFoundError if the package was copied without them."""
    # The wheel first: a folder `configs` beside an installed package would be someone else's.
    places = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for place in places:
        if place.is_dir():
            return place
    where = f'{places[0]} (wheel) or {places[1]} (checkout)'
    raise FileNotFoundError(f'mmres2net has no configs at {where}; install a wheel, or a checkout with pip install -e')


def list_configs(folder: Path | None = None) -> list[str]:
    """Return the runnable configs in a folder (None: the shipped ones), relative to it, with forward slashes."""
    root = folder or config_dir()
    names = (path.relative_to(root) for path in root.rglob('*.py'))
    return sorted(name.as_posix() for name in names if '_base_' not in name.parts)  # fragments, which do not run


def find_config(name: str | Path) -> Path:
    """Return the config file that a name means; a FileNotFoundError has the names that come close.

    ``name`` is a path that exists, a name relative to the shipped configs, with or without ``.py`` and ``mmres2net::``,
    or ``LIBRARY::NAME`` for a config that came with mmdet, mmseg, mmpretrain or another package of this layout; there
    the folder may be left out.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).exists():
        raise FileNotFoundError(f'{name} is a folder, a pipe or a device; name a config file')
    library, _, short = str(name).removeprefix(OWN).rpartition('::')
    root = _folder_of(library) if library else config_dir()
    wanted = short if short.endswith('.py') else f'{short}.py'
    known = list_configs(root)
    same = [entry for entry in known if Path(entry).name == wanted] if library else []
    if (root / wanted).is_file() or len(same) == 1:
        return root / wanted if (root / wanted).is_file() else root / same[0]
    matches = ', '.join(f'{library}::{entry}' if library else entry for entry in same or _close(short, known))
    hint = f'close matches: {matches}' if matches else '`mmres2net configs --list` lists the shipped ones'
    raise FileNotFoundError(f'no config {str(name)!r}, neither as a path nor in {root}; {hint}')


def _folder_of(library: str) -> Path:
    # MMEngine knows this notation too, but reads every metafile first, and installs what it thinks is missing.
    try:
        spec = importlib.util.find_spec(library) if library.isidentifier() else None
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    for place in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(place) / '.mim' / 'configs').is_dir():
            return folder
    raise FileNotFoundError(
        f'no package {library!r} with configs is installed; mmdet, mmseg and mmpretrain have some '
        '(pip install onedl-mmdetection onedl-mmsegmentation onedl-mmpretrain)'
    )


def _close(name: str, known: list[str]) -> list[str]:
    """Return up to eight of ``known`` whose file names are like that of ``name``, with ``-`` or ``_``."""
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
