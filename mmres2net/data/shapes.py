"""The embedded data set `shapes`: drawn in seconds, for the demo and for tests without a download.

A set is complete or absent: it is drawn into a temporary folder and renamed at the end. The same spec gives the same
annotations and masks byte for byte on any platform; the JPEG files also depend on Pillow's encoder.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmres2net.data.shapes_layout import COCO_SIZES, write_set
from mmres2net.data.shapes_scene import CLASSES, ShapesSpec, draw_scene
from mmres2net.errors import UserError
from mmres2net.files import locked
from mmres2net.flags import parse
from mmres2net.text import format_table

__all__ = ['CLASSES', 'DEFAULT_SPEC', 'ShapesSpec', 'draw_scene', 'main', 'make_shapes', 'summary', 'verify_shapes']

VERSION = 1  # increase it with every change of the images or files
MANIFEST = 'shapes.json'
PARTS = ('spec', 'counts', 'digests')  # of the manifest
DEFAULT_SPEC = ShapesSpec()


def make_shapes(root: str | Path, *, spec: ShapesSpec = DEFAULT_SPEC) -> Path:
    """Make the set in folder `root`, unless it is there already; return the folder.

    Progress goes to stderr. An interrupted call leaves nothing at `root`; a second process waits for the first.

    Raises:
        FileExistsError: `root` has other content or a set of another spec. Nothing in it is ever deleted.
        ValueError: `root` has the set, but files are missing or changed.
    """
    root = Path(root)
    if not _is_made(root, spec):
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent, f'waiting for another process that makes a data set in {root.parent}', wait=True):
            if not _is_made(root, spec):
                _make(root, spec)
    return root


def _make(root: Path, spec: ShapesSpec) -> None:
    draft = root.with_name(f'.{root.name}.partial')
    shutil.rmtree(draft, ignore_errors=True)  # a killed process left it
    draft.mkdir()
    try:
        counts = write_set(draft, spec)
        manifest = {'name': 'shapes', 'version': VERSION, 'spec': asdict(spec), 'counts': counts}
        manifest['digests'] = _digests(draft)
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
        draft.rename(root)  # which is absent or an empty folder
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_made(root: Path, spec: ShapesSpec) -> bool:
    way = 'choose another folder, or remove it yourself'
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FileExistsError(f'{root} exists and is not a shapes data set; {way}')
    made = verify_shapes(root)['spec']
    changed = [f'{k}={made.get(k)} (requested: {value})' for k, value in asdict(spec).items() if made.get(k) != value]
    if changed:
        raise FileExistsError(f'{root} has a set with {", ".join(changed)}; {way}')
    return True


def _digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of names and content of the files in each folder; hidden files are ignored."""
    digests: dict[str, Any] = {}
    for path in sorted(root.rglob('*')):
        relative = path.relative_to(root)
        if path.is_file() and relative.name != MANIFEST and not any(part.startswith('.') for part in relative.parts):
            digest = digests.setdefault(relative.parent.as_posix(), hashlib.sha256())
            data = path.read_bytes()
            digest.update(f'{path.name} {len(data)}\n'.encode())
            digest.update(data)
    return {folder: digest.hexdigest() for folder, digest in digests.items()}


def verify_shapes(root: str | Path) -> dict[str, Any]:
    """Check that every byte of the set in folder `root` is as it was made; return its manifest.

    The manifest has `version`, `spec`, `counts` (by split: images, objects, crowds, classes, sizes) and `digests`.

    Raises:
        FileNotFoundError: There is no set in `root`.
        ValueError: The set was made by another version, or files are missing, added or changed.
    """
    root = Path(root)
    path = root / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing: {root} has no complete set; make one with `mmres2net demo-data`')
    again = f'remove {root} and make the set again with `mmres2net demo-data`'
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is damaged ({error}); {again}') from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), dict) for key in PARTS):
        raise ValueError(f'{path} is not the manifest of a set; {again}')
    if (made := (manifest.get('name'), manifest.get('version'))) != ('shapes', VERSION):
        raise ValueError(f'{path} is of {made[0]!r} version {made[1]!r}, not shapes version {VERSION}; {again}')
    expected, found = manifest['digests'], _digests(root)
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        raise ValueError(f'{root}: files are missing, added or changed in {", ".join(wrong)}; {again}')
    return manifest


def summary(manifest: dict[str, Any]) -> str:
    """Return the counts by split, class and COCO size as a table."""
    totals = ('images', 'objects', 'crowds')
    rows = [
        (split, *(count[key] for key in totals), *count['classes'].values(), *count['sizes'].values())
        for split, count in manifest['counts'].items()
    ]
    return format_table(rows, ('split', *totals, *CLASSES, *COCO_SIZES))


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set and print its counts.

    Raises:
        UserError: Numbers out of range, or a folder that has other content or cannot be written.
    """
    args = parse('demo-data', argv)
    try:
        root = make_shapes(args.root, spec=ShapesSpec(n_train=args.train, n_val=args.val, seed=args.seed))
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f'{summary(verify_shapes(root))}\nthe data set is in {root}')
    return 0
