"""Where the shipped configs are, in a checkout as well as in an installed wheel.

``python -m mmres2net.paths`` prints the folder. Only the standard library is imported, so that this works at once.
"""

from __future__ import annotations

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BASES = '_base_'  # fragments that configs inherit from; they do not run on their own


def config_dir() -> Path:
    """Return the folder of the shipped configs.

    Raises:
        FileNotFoundError: the package was copied without them.
    """
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
        name: a path that exists, or a name relative to the shipped configs, with or without ``.py``.

    Raises:
        FileNotFoundError: neither exists; the message has the names that come close.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = config_dir() / name
    # Not with_suffix(): a name such as `r2n50_lr0.02` has a dot of its own.
    for candidate in (shipped, shipped.with_name(shipped.name + '.py')):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(_not_found(str(name)))


def _not_found(name: str) -> str:
    known = list_configs()
    wanted = Path(name).name.removesuffix('.py')
    stems = {entry: Path(entry).name.removesuffix('.py') for entry in known}
    close = set(difflib.get_close_matches(wanted, stems.values(), n=5, cutoff=0.6))
    matches = [entry for entry, stem in stems.items() if stem in close or (wanted and wanted in stem)]
    hint = f'close matches: {", ".join(matches[:8])}' if matches else f'the shipped ones are: {", ".join(known)}'
    return f'no config {name!r}, neither as a path nor in {config_dir()}; {hint}'


if __name__ == '__main__':
    print(config_dir())
