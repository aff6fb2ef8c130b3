"""What a command gets to read: images, folders, patterns, videos and cameras; and where the files of each go."""

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.errors import UserError
from mmres2net.files import IMAGE_SUFFIXES, writable_dir
from mmres2net.predict.images import Array, read_image

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
CAMERA = 'camera'
DEFAULT_RATE = 25.0  # frames per second where a camera or a file does not say


def find_files(
    names: Sequence[str], suffixes: Sequence[str] = IMAGE_SUFFIXES, *, leave_out: Path | None = None
) -> list[Path]:
    """Return the files that ``names`` name, each once; those of folders and their subfolders in order of names.

    Names are files, folders, or patterns such as ``photos/**/*.jpg``. Hidden files and the folder ``leave_out``, that
    of the results, are left out. A UserError names what does not exist, or a folder without files of these suffixes.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        there = [str(path)] if path.exists() else glob.glob(str(path), recursive=True)
        # Each place once, by its first name: links may lead back to a folder above.
        places = {os.path.realpath(match): match for match in sorted(there, reverse=True)}
        matches = [Path(match) for match in sorted(places.values())]
        if not matches:
            raise UserError(f'no image {path}')
        for match in matches:
            files = [match] if match.is_file() else list(files_below(match, suffixes, leave_out))
            if not files and len(matches) == 1:
                raise UserError(f'{match}: no image in this folder ({", ".join(suffixes)})')
            found |= dict.fromkeys(files)
    if names and not found:
        raise UserError(f'{" ".join(names)}: no image in these folders ({", ".join(suffixes)})')
    return list(found)


def files_below(folder: Path, suffixes: Sequence[str], leave_out: Path | None = None) -> Iterator[Path]:
    """Yield the files of a folder, then those of its subfolders, in order of names and without hidden ones."""
    seen = {os.path.realpath(leave_out)} if leave_out else set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        paths = [Path(parent, name) for name in sorted(files) if not name.startswith('.')]
        yield from (path for path in paths if path.suffix.lower() in suffixes and path.is_file())


def find_inputs(names: Sequence[str], leave_out: Path | None = None) -> list[Path]:
    """Return images and videos as :func:`find_files` does; a number that is no file is a camera, ``cameraN``."""
    found: list[Path] = []
    for name in names:
        camera = name.isdecimal() and not Path(name).exists()
        suffixes = (*IMAGE_SUFFIXES, *VIDEOS)
        found += [Path(f'{CAMERA}{name}')] if camera else find_files([name], suffixes, leave_out=leave_out)
    return list(dict.fromkeys(found))


def is_stream(path: Path) -> bool:
    """Return whether an input is a video or a camera."""
    return path.suffix.lower() in VIDEOS or (path.name.startswith(CAMERA) and not path.exists())


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """Yield OpenCV's reader of a video or a camera; a UserError says that it cannot be opened."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(f'{path}: videos and cameras need OpenCV: pip install opencv-python-headless') from error
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path) if path.exists() else int(path.name.removeprefix(CAMERA)))
    try:
        if not capture.isOpened():
            raise UserError(f'{path} cannot be opened as a {"video" if path.exists() else "camera"}')
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def frames_of(path: Path, *, apply_exif: bool = True) -> Iterator[Array]:
    """Yield the image at ``path``, or the frames of a video or a camera, as (H, W, 3) uint8 RGB."""
    if not is_stream(path):
        yield read_image(path, apply_exif=apply_exif)
        return
    with open_stream(path) as capture:
        good, frame = capture.read()
        if not good:
            raise UserError(f'{path} holds no frame that can be read')
        while good:
            yield np.ascontiguousarray(frame[..., ::-1])
            good, frame = capture.read()


def count_and_rate(path: Path) -> tuple[int | None, float]:
    """Return the number of frames of an input, None where it is unknown, and the frames per second of a video."""
    if not is_stream(path):
        return 1, DEFAULT_RATE
    try:
        with open_stream(path) as capture:
            count, rate = (capture.get(key) for key in (7, 5))  # cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS
    except UserError:  # said when it is read
        return None, DEFAULT_RATE
    return int(count) if 0 < count < 1e9 else None, rate if 0 < rate < 1e4 else DEFAULT_RATE


class Skipped(dict[Path, str]):
    """Inputs that could not be used, each with the last reason."""

    def add(self, path: Path, error: Exception) -> None:
        """Note an input; its first reason is printed."""
        reason = str(error).removeprefix(str(path)).lstrip(': ')
        if path not in self:
            print(f'skipped {path}: {reason}', file=sys.stderr)
        self[path] = reason

    def status(self, done: int, total: int) -> int:
        """Return the exit status of a run with ``total`` inputs; a UserError says that nothing was ``done``."""
        if not done:
            raise UserError('nothing was done: {}: {}'.format(*next(iter(self.items()))))
        if self:
            print(f'skipped {len(self)} of {total} images: {", ".join(map(str, self))}', file=sys.stderr)
        return 1 if self else 0


def output_paths(
    paths: Sequence[Path], folder: Path, endings: Callable[[Path], Sequence[str]] = lambda path: ('.png',)
) -> dict[Path, list[Path]]:
    """Return where the files of each image go; the folder and its subfolders are made.

    The folders of the images below their common folder are kept; ``endings`` returns what follows the stem of an image
    in the names of its files. A UserError says that the folder cannot be written to, that two images would have the
    same file, or that an image would be replaced.
    """
    common = Path(os.path.commonpath([path.absolute().parent for path in paths] or [folder]))
    targets: dict[Path, list[Path]] = {}
    owners: dict[Path, Path] = {}
    for path in paths:
        place = folder / path.absolute().parent.relative_to(common)
        targets[path] = [place / f'{path.stem}{ending}' for ending in endings(path)]
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
