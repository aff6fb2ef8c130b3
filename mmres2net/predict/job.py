"""``mmres2net predict``: what an exported file sees in images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmres2net.errors import UserError
from mmres2net.predict.draw import draw, name_of
from mmres2net.predict.facts import Facts
from mmres2net.predict.images import read_image
from mmres2net.predict.model import load

Array = npt.NDArray[Any]
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def parser(prog: str = 'mmres2net predict') -> argparse.ArgumentParser:
    """Return the flags of the runner."""
    flags = argparse.ArgumentParser(
        prog=prog, description='Predict from an exported file; neither mmdet nor mmseg has to be installed.'
    )
    flags.add_argument('file', help='a .onnx, .xml (OpenVINO), .pt (TorchScript) or .pt2 (torch.export) file of export')
    flags.add_argument('images', nargs='+', help='images, or folders of them')
    flags.add_argument('--out', metavar='DIR', help='write drawn pictures into this folder')
    flags.add_argument('--score', type=float, metavar='S', help='show detections from this score on; default: 0.3')
    flags.add_argument('--json', action='store_true', help='print one JSON object an image instead of text')
    flags.add_argument('--threads', type=int, metavar='N', help='threads of the runtime; default: as it chooses')
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Predict by the flags in ``argv`` and print what was found; return 0.

    Raises:
        UserError: A mistake in the flags, the file or an image.
    """
    args = parser().parse_args(argv)
    if args.threads is not None and args.threads < 1:
        raise UserError(f'--threads {args.threads}: choose 1 or more')
    paths = images_in(args.images)
    targets = pictures_of(paths, Path(args.out)) if args.out else []
    model = load(args.file, threads=args.threads)
    score = args.score if args.score is not None else max(0.3, model.facts.score_threshold)
    for index, path in enumerate(paths):
        image = read_image(path)
        found = model.predict(image, score=score)
        content = described(found, model.facts)
        print(json.dumps({'image': str(path), **content}) if args.json else as_text(path, content))
        if targets:
            draw(image, found, model.facts).save(targets[index])
    if targets and not args.json:
        print(f'{len(targets)} pictures: {args.out}')
    return 0


def images_in(names: Sequence[str]) -> list[Path]:
    """Return the images that ``names`` name, those of a folder by name.

    Raises:
        UserError: One is not there, or a folder has none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f'{path}: no image in this folder ({", ".join(SUFFIXES)})')
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f'no image {path}')
    return found


def pictures_of(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Return where the picture of each image goes; the folder is made.

    Raises:
        UserError: The folder cannot be made, or two pictures would have the same name.
    """
    targets = [folder / f'{path.stem}.png' for path in paths]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice:
        raise UserError(f'two images would become {twice}: predict them into different folders')
    clash = next(
        (path for path, target in zip(paths, targets, strict=True) if target.resolve() == path.resolve()), None
    )
    if clash:
        raise UserError(f'--out {folder}: the picture would replace {clash}; name another folder')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {folder} cannot be made: {error.strerror}') from error
    return targets


def described(found: dict[str, Array], facts: Facts) -> dict[str, Any]:
    """Return what was found as plain data: detections, shares of classes, or sizes of features."""
    if facts.task == 'detection':
        return {'detections': [_detection(found, index, facts) for index in range(len(found['scores']))]}
    if facts.task == 'segmentation':
        labels, counts = np.unique(found['classes'], return_counts=True)
        order = np.argsort(-counts, kind='stable')
        total = found['classes'].size
        return {'shares': {name_of(facts, int(labels[i])): round(float(counts[i] / total), 4) for i in order}}
    return {'features': {name: list(value.shape) for name, value in found.items()}}


def _detection(found: dict[str, Array], index: int, facts: Facts) -> dict[str, Any]:
    label = int(found['labels'][index])
    box = [round(float(value), 1) for value in found['boxes'][index]]
    row = {'class': name_of(facts, label), 'score': round(float(found['scores'][index]), 4), 'box': box}
    return {**row, 'pixels': int(found['masks'][index].sum())} if 'masks' in found else row


def as_text(path: Path, content: dict[str, Any]) -> str:
    """Return what :func:`described` gives as lines of text."""
    (kind, entries), *_ = content.items()
    if kind == 'detections':
        rows = [
            f'  {row["class"]:<16} {row["score"]:.3f}  box {" ".join(f"{value:.1f}" for value in row["box"])}'
            + (f'  {row["pixels"]} pixels' if 'pixels' in row else '')
            for row in entries
        ]
        return '\n'.join([f'{path}: {len(rows)} found', *rows])
    rows = [
        f'  {name:<16} {value:.1%}' if kind == 'shares' else f'  {name:<16} {value}' for name, value in entries.items()
    ]
    return '\n'.join([f'{path}:', *rows])
