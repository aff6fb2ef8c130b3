"""The embedded data set `shapes`: drawn in seconds, for the demo and for tests without a download.

A set is complete or absent: it is drawn into a temporary folder and renamed at the end. The same spec gives the same
annotations and masks byte for byte on any platform; the JPEG files also depend on Pillow's encoder.
"""

import argparse
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmres2net.data import shapes_layout as layout
from mmres2net.data.shapes_scene import CLASSES, SPLITS, Scene, ShapesSpec, draw_scene
from mmres2net.errors import UserError
from mmres2net.fetch.progress import progress_bar
from mmres2net.files import locked
from mmres2net.text import format_table

__all__ = ['CLASSES', 'DEFAULT_SPEC', 'ShapesSpec', 'draw_scene', 'main', 'make_shapes', 'summary', 'verify_shapes']

VERSION = 1  # increase it with every change of the images or files
MANIFEST = 'shapes.json'
PARTS = ('spec', 'counts', 'digests')  # of the manifest
DEFAULT_SPEC = ShapesSpec()
COCO_SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 10**9)}  # areas in pixels


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
        counts = _write(draft, spec)
        manifest = {'name': 'shapes', 'version': VERSION, 'spec': asdict(spec), 'counts': counts}
        manifest['digests'] = _digests(draft)
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
        draft.rename(root)  # which is absent or an empty folder
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_made(root: Path, spec: ShapesSpec) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / MANIFEST).is_file():
        raise FileExistsError(
            f'{root} exists and is not a shapes data set; choose another folder, or remove it yourself'
        )
    made = verify_shapes(root)['spec']
    differing = [(key, value) for key, value in asdict(spec).items() if made.get(key) != value]
    if differing:
        changed = ', '.join(f'{key}={made.get(key)} (requested: {value})' for key, value in differing)
        raise FileExistsError(f'{root} has a set with {changed}; choose another folder, or remove it yourself')
    return True


def _write(root: Path, spec: ShapesSpec) -> dict[str, Any]:
    layout.make_folders(root)
    counts = {}
    for split, total in zip(SPLITS, (spec.n_train, spec.n_val), strict=True):
        coco = layout.coco_header()
        with progress_bar(f'shapes: {split}', total, unit=' images') as bar:
            for index in range(total):
                scene, name = draw_scene(spec, split, index), layout.stem(split, index)
                layout.write_image(root, split, name, scene)
                _append(coco, scene, name)
                bar.update()
        path = root / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(coco, separators=(',', ':')), encoding='utf-8')
        counts[split] = _count(coco)
    layout.write_lists(root, spec)
    return counts


def _append(coco: dict[str, Any], scene: Scene, name: str) -> None:
    height, width = scene.image.shape[:2]
    coco['images'].append({'id': int(name), 'file_name': f'{name}.jpg', 'height': height, 'width': width})
    for instance in scene.instances:
        coco['annotations'].append(layout.coco_annotation(instance, int(name), len(coco['annotations']) + 1))


def _count(coco: dict[str, Any]) -> dict[str, Any]:
    """Count images, crowds, and the other objects by class and COCO size."""
    single = [entry for entry in coco['annotations'] if not entry['iscrowd']]
    labels = Counter(entry['category_id'] for entry in single)
    sizes = {name: sum(low <= entry['area'] < high for entry in single) for name, (low, high) in COCO_SIZES.items()}
    return {
        'images': len(coco['images']),
        'objects': len(single),
        'crowds': len(coco['annotations']) - len(single),
        'classes': {name: labels[i] for i, name in enumerate(CLASSES, start=1)},
        'sizes': sizes,
    }


def _digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of names and content of the files in each folder."""
    digests: dict[str, Any] = {}
    for path in layout.content(root):
        if path.name == MANIFEST:
            continue
        digest = digests.setdefault(path.parent.as_posix(), hashlib.sha256())
        data = (root / path).read_bytes()
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
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is damaged ({error}); remove {root} and make the set again') from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), dict) for key in PARTS):
        raise ValueError(f'{path} is not the manifest of a set; remove {root} and make the set again')
    if manifest.get('name') != 'shapes' or manifest.get('version') != VERSION:
        raise ValueError(
            f'{path} is of {manifest.get("name")!r} version {manifest.get("version")!r}, not shapes version {VERSION}; '
            'choose another folder, or remove this one and run `mmres2net demo-data` again'
        )
    expected, found = manifest['digests'], _digests(root)
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        raise ValueError(
            f'{root}: files are missing, added or changed in {", ".join(wrong)}; remove {root} and make the set again'
        )
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
    parser = argparse.ArgumentParser(
        prog='mmres2net demo-data', description='Make the embedded data set "shapes" in COCO, VOC and saliency layout.'
    )
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/shapes'), help='folder (default: %(default)s)')
    parser.add_argument('--train', type=int, default=DEFAULT_SPEC.n_train, help='training images (%(default)s)')
    parser.add_argument('--val', type=int, default=DEFAULT_SPEC.n_val, help='validation images (%(default)s)')
    parser.add_argument('--seed', type=int, default=DEFAULT_SPEC.seed, help='seed of the images (%(default)s)')
    args = parser.parse_args(argv)
    try:
        root = make_shapes(args.root, spec=ShapesSpec(n_train=args.train, n_val=args.val, seed=args.seed))
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(summary(verify_shapes(root)))
    print(f'the data set is in {root}')
    return 0
