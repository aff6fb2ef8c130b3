"""``mmres2net predict``: the predictions of an exported file for images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.files import writable_dir, write_atomic
from mmres2net.predict.images import read_image
from mmres2net.predict.model import Model, Prediction, load
from mmres2net.predict.outputs import describe, draw_prediction, format_prediction, label_map, to_coco

Array = npt.NDArray[Any]
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
LABELS = '_labels.png'
COCO_FILE = 'predictions.json'
DEFAULT_SCORE = 0.3


def parser(prog: str = 'mmres2net predict') -> argparse.ArgumentParser:
    """Return the flags of the command."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Predict with an exported file; no OpenMMLab library is imported.',
        epilog='.pt and .pt2 files are programs: open them only if you trust their source. Exit status: 0, 1 if images '
        'were skipped because they are broken, 2 if nothing was predicted.',
    )
    flags.add_argument('file', help='an exported .onnx, .xml (OpenVINO), .pt (TorchScript) or .pt2 (torch.export) file')
    flags.add_argument('images', nargs='+', help='images, or folders, which are searched with all their subfolders')
    flags.add_argument(
        '--out',
        metavar='DIR',
        help=f'write drawn images into this folder, detections as {COCO_FILE} (COCO), classes of pixels as '
        f'NAME{LABELS}; existing files are replaced, which is reported',
    )
    flags.add_argument('--score', type=float, metavar='S', help=f'drop detections below it; default: {DEFAULT_SCORE}')
    flags.add_argument('--json', action='store_true', help='print a JSON object for each image instead of text')
    flags.add_argument('--threads', type=int, metavar='N', help="threads of the runtime; default: the runtime's")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Predict by the flags in ``argv`` and print the predictions; return 1 if images were skipped, else 0.

    Raises:
        UserError: A mistake in the flags or the file, or no image that can be read.
    """
    args = parser().parse_args(argv)
    if args.score is not None and not 0 <= args.score <= 1:
        raise UserError(f'--score {args.score}: choose 0 to 1')
    paths = find_images(args.images)
    model = load(args.file, threads=args.threads)
    targets = output_paths(paths, Path(args.out), labels=model.metadata.task == 'segmentation') if args.out else {}
    score = max(DEFAULT_SCORE, model.metadata.score_threshold) if args.score is None else args.score
    broken = check_images(paths)
    done = []
    for path in [path for path in paths if path not in broken]:
        image = read_image(path, apply_exif=model.metadata.apply_exif)
        try:
            prediction = model.predict(image, score=score)
        except UserError as error:
            broken[path] = _report(path, error)
            continue
        content = describe(prediction, model.metadata)
        print(json.dumps({'image': str(path), **content}) if args.json else format_prediction(path, content))
        if args.out:
            _write(image, prediction, model, *targets[path])
            done.append((str(path), (image.shape[0], image.shape[1]), prediction))
    if args.out and model.metadata.task == 'detection':
        write_atomic(Path(args.out, COCO_FILE), json.dumps(to_coco(done, model.metadata)))
    if broken:
        print(f'skipped {len(broken)} of {len(paths)} images: {", ".join(map(str, broken))}', file=sys.stderr)
    return 1 if broken else 0


def find_images(names: Sequence[str]) -> list[Path]:
    """Return the image files that ``names`` name, each once; those of folders and their subfolders in order of names.

    Hidden files and folders are left out.

    Raises:
        UserError: A name that does not exist, or a folder without images.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = list(images_below(path))
            if not inside:
                raise UserError(f'{path}: no image in this folder ({", ".join(SUFFIXES)})')
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise UserError(f'no image {path}')
    return list(found)


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder, then those of its subfolders, in order of names and without hidden ones."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        paths = [Path(parent, name) for name in sorted(files) if not name.startswith('.')]
        yield from (path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())


def check_images(paths: Sequence[Path]) -> dict[Path, str]:
    """Read all images once, so that broken ones are reported before the first prediction; return these with why.

    Raises:
        UserError: No image can be read.
    """
    broken: dict[Path, str] = {}
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            broken[path] = _report(path, error)
    if len(broken) == len(paths):
        raise UserError('none of these images can be read')
    return broken


def _report(path: Path, error: UserError) -> str:
    print(f'skipped {path}: {error}', file=sys.stderr)
    return str(error)


def output_paths(paths: Sequence[Path], folder: Path, *, labels: bool = False) -> dict[Path, list[Path]]:
    """Return where the files of each image go; the folder and its subfolders are made.

    The folders of the images below their common folder are kept.

    Args:
        paths: The images.
        folder: Where the files go.
        labels: Whether each image also has a label map.

    Raises:
        UserError: The folder cannot be written to, two images would have the same file, or an image be replaced.
    """
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    targets: dict[Path, list[Path]] = {}
    owners: dict[Path, Path] = {}
    for path in paths:
        target = folder / path.absolute().relative_to(common).with_suffix('.png')
        targets[path] = [target, *([target.with_name(f'{target.stem}{LABELS}')] if labels else [])]
        for name in targets[path]:
            if name in owners:
                raise UserError(f'--out {folder}: {owners[name]} and {path} would both be written to {name.name}')
            owners[name] = path
    sources = {path.resolve() for path in paths}
    replaced = [name for name in owners if name.exists()]
    clash = [name for name in replaced if name.resolve() in sources]
    if clash:
        raise UserError(f'--out {folder}: {clash[0]} is one of the images; name another folder')
    for place in dict.fromkeys([folder, *(name.parent for name in owners)]):
        writable_dir(place, '--out')
    if replaced:
        print(f'{len(replaced)} existing files in {folder} are replaced', file=sys.stderr)
    return targets


def _write(image: Array, prediction: Prediction, model: Model, drawn: Path, *maps: Path) -> None:
    Image.fromarray(draw_prediction(image, prediction, model.metadata)).save(drawn)
    for path in maps:
        label_map(prediction['classes'], model.metadata).save(path)
