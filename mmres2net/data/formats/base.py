"""What a reader returns: the samples of a data set with their annotations, and what is wrong with the files."""

import codecs
import math
import os
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from mmres2net.environment import granted_cores
from mmres2net.errors import UserError
from mmres2net.fetch.download import progress_bar
from mmres2net.files import IMAGE_SUFFIXES
from mmres2net.text import join_some

T = TypeVar('T')
U = TypeVar('U')
BLOCK = 2048  # items handed to the threads at once
Box = tuple[float, float, float, float]
Size = tuple[int, int]  # (width, height) in pixels
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
IGNORED = 255  # mmseg turns to this value what it leaves out of masks, whatever the ignore index


class Finding(NamedTuple):
    """One error or one note: its kind, the file (and entry) it is in, and what exactly is there."""

    kind: str
    where: str
    what: str = ''


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object."""

    where: str  # the file and the entry
    label: str | None  # a class name; None: a number that stands for no class
    box: Box | None = None  # left, top, right, bottom in pixels, as the data set hands them to training
    segmentation: Any = None  # COCO's polygons or run lengths
    dropped: str = ''  # why the OpenMMLab data set class leaves the object out; empty where it does not
    crowd: bool = False  # it marks a group of objects
    ignored: bool = False  # training ignores it, for example as difficult
    area: float | None = None  # square pixels of its mask or as the file states them; None: those of the box


Parsed = tuple[Size | None, list[Annotation], list[Finding]]


@dataclass(slots=True)
class Sample:
    """One image with its annotations in their own form (``raw``); ``size`` is what they state."""

    image: str
    size: Size | None = None
    raw: Any = None
    mask: str = ''
    pixels: Any = None  # (H, W, 3) RGB where the data set has no image files
    parsed: Parsed | None = None  # where its annotations have been read already

    def parse(self) -> Parsed:
        """Return what has been read already."""
        size, annotations, findings = self.parsed or (self.size, [], [])
        return size, annotations, list(findings)  # to which checks add theirs


@dataclass
class Split:
    """A data set of a config, read except for its images."""

    part: str  # the parts of the config that read it, as 'val, test'
    source: str  # its annotation file or folder
    dataset: str  # its class
    node: dict[str, Any] = field(default_factory=dict)  # its dict in the config
    classes: tuple[str, ...] = ()
    unit: str = 'objects'  # what is counted by class: objects, images or pixels
    samples: list[Sample] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    parse: Callable[[Sample], Parsed] = Sample.parse  # parses the annotations of one sample
    mask_values: dict[int, str] = field(default_factory=dict)  # of semantic masks: value -> class name; '' is ignored
    # The data set's own reader of a mask file: labels (H, W) or a UserError; None: the values in it are the labels.
    read_mask: Callable[[str], np.ndarray] | None = None
    check_names: Callable[[Iterable[str]], str] | None = None  # why the names of all objects do not fit the classes
    needs_masks: bool = False  # the config reads instance masks
    any_format: bool = False  # images are not loaded by OpenCV
    turns_images: bool = True  # images are loaded as their EXIF orientation says
    unlabeled: bool = False  # no metric is computed, as in the test split of a challenge

    @property
    def training(self) -> bool:
        """Whether a model is trained on it."""
        return 'train' in self.part

    def keeps(self, size: Size | None, labels: Iterable[str | None]) -> bool:
        """Return whether ``filter_cfg`` keeps an image of ``size`` with objects of ``labels`` for training."""
        rules = self.node.get('filter_cfg') or {}
        if not self.training or self.node.get('test_mode'):
            return True
        large = size is None or min(size) >= (rules.get('min_size') or 0)
        return large and (not rules.get('filter_empty_gt') or any(label in self.classes for label in labels))


def regular_file(path: str, limit: int | None = None) -> str:
    """Return ``path``; OSError: it is not there; ValueError: more than ``limit`` bytes, or a pipe, which never ends."""
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError('not a regular file')
    if limit is not None and facts.st_size > limit:
        raise ValueError(f'{facts.st_size:,} bytes; at most {limit:,} are read')
    return path


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """Return the content of a file of at most ``limit`` bytes, or raise a UserError."""
    try:
        return Path(regular_file(str(path), limit)).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error


def read_text(path: str | Path, limit: int | None = None) -> str:
    """Return the text of a file in UTF-8, without a byte order mark, or raise a UserError."""
    data = read_bytes(path, limit)
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b'\n') + 1
        raise UserError(f'{path} is not UTF-8 text (line {line}); save it as UTF-8') from error


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a list of images as MMEngine reads them, without line ends, or raise a UserError."""
    text = read_text(path)
    if read_bytes(path).startswith(codecs.BOM_UTF8):
        raise UserError(f'{path} begins with a byte order mark, which becomes part of the first name; save it without')
    return [line.rstrip('\r') for line in text.removesuffix('\n').split('\n')] if text else []


def image_size(path: str) -> Size | None:
    """Return the (width, height) of an image as loaders turn it, from its header; None if it cannot be read."""
    try:
        with Image.open(regular_file(path)) as image:
            turned = image.format in ('JPEG', 'MPO', 'TIFF', 'WEBP') or 'exif' in image.info
            orientation = image.getexif().get(ORIENTATION, 1) if turned else 1
            return (image.height, image.width) if orientation in (5, 6, 7, 8) else image.size
    except Exception:  # damaged files raise many kinds of error; the check of the image names it
        return None


def in_threads(function: Callable[[T], U], items: Sequence[T], text: str = 'reading') -> Iterator[U]:
    """Yield what ``function`` returns for each item, in order, by a thread for each core, at most 16."""
    bar = progress_bar(text, len(items), unit=' images')
    bar.leave = False
    with ThreadPoolExecutor(max(min(int(granted_cores()), 16), 1)) as pool, bar:
        for start in range(0, len(items), BLOCK):
            for result in pool.map(function, items[start : start + BLOCK]):
                yield result
                bar.update()


def similar_class(name: str, classes: Sequence[str]) -> str | None:
    """Return the class that ``name`` differs from by case and blanks alone; None where there is none."""
    key = ''.join(name.split()).casefold()
    return next((c for c in classes if c != name and ''.join(c.split()).casefold() == key), None)


def class_fault(source: str, names: Iterable[str], classes: Sequence[str], *, all_needed: bool) -> str:
    """Return why annotations of ``names`` are those of another vocabulary than ``classes``; empty if they are not.

    COCO needs a category for each class. Elsewhere unknown names beside absent classes, or no known name, are another
    vocabulary. Names that are spelled almost alike are reported one by one.
    """
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in classes and similar_class(name, classes) is None]
    absent = [name for name in classes if name not in names]
    if not (absent if all_needed else unknown and (absent or not set(names) & set(classes))):
        return ''
    missing = f'{source} has no category for {len(absent)} of the {len(classes)} classes: {join_some(absent)}'
    ways = 'set metainfo.classes of the data sets and num_classes of the heads to those of the annotations'
    return f'{missing}; it has {join_some(names) or "none"}; {ways}'


def left_out(folder: Path, suffixes: tuple[str, ...], *, ignore_case: bool) -> list[Finding]:
    """Return a note on image files in ``folder`` whose suffix the data set class does not read, if there are any."""
    names = [name for _, _, names in os.walk(folder, followlinks=True) for name in names]
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')]
    read = tuple(suffix.lower() for suffix in suffixes) if ignore_case else suffixes
    others = Counter(Path(n).suffix for n in images if not (n.lower() if ignore_case else n).endswith(read))
    listed = ', '.join(f'{suffix} ({count:,})' for suffix, count in sorted(others.items()))
    what = f'{others.total():,} of {len(names):,} files end in {listed}; read are {", ".join(suffixes)}'
    return [Finding('files left out', str(folder), what)] if others else []


# Geometry


def box_text(box: Box) -> str:
    """Return a box as text: its corners, width and height."""
    x1, y1, x2, y2 = box
    return f'{x1:g}, {y1:g} to {x2:g}, {y2:g}: {x2 - x1:g} wide, {y2 - y1:g} high'


def is_outside(box: Box, size: Size) -> bool:
    """Return whether no part of a box is inside an image of ``size``."""
    return min(box[2], size[0]) <= max(box[0], 0) or min(box[3], size[1]) <= max(box[1], 0)


def polygon_numbers(polygon: Any) -> 'array[float] | None':
    """Return the numbers x, y, x, y, ... of a polygon of COCO; None where they are not finite numbers."""
    try:
        values = array('d', polygon)
    except (TypeError, ValueError, OverflowError):
        return None
    return values if math.isfinite(sum(values)) else None


def is_polygon(numbers: 'array[float]') -> bool:
    """Return whether ``numbers`` are at least three points; mmdet leaves out what is not."""
    return len(numbers) >= 6 and len(numbers) % 2 == 0


def rle_fault(rle: dict[str, Any]) -> str:
    """Return what is wrong with COCO's run lengths, which are never expanded; empty if they fill their size."""
    try:
        height, width = (int(value) for value in rle['size'])
        counts = rle['counts']
        if isinstance(counts, bytes | str):
            runs = _runs(counts.encode('ascii') if isinstance(counts, str) else counts)
        else:
            runs = [int(count) for count in counts]
    except KeyError as error:
        return f'no {error.args[0]!r}'
    except (TypeError, ValueError, OverflowError) as error:
        return f'not run lengths: {error}'
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        return f'runs of {sum(runs):,} pixels in all for {width}x{height} = {height * width:,}'
    return ''


def _runs(text: bytes) -> list[int]:
    """Return the runs of compressed run lengths: numbers in base 32, from the third on relative to two before."""
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f'byte {byte} in the compressed counts')
        value |= (digit & 0x1F) << shift
        shift += 5
        if not digit & 0x20:
            value -= (1 << shift) if digit & 0x10 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError('the compressed counts are cut short')
    return runs
