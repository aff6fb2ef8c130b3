"""Samples with their annotations as a folder holds them: COCO, VOC and YOLO; see ``images.py`` for the others."""

from __future__ import annotations

import mmap
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.data.formats.base import Finding, Parsed, Sample, Split, regular_file
from mmres2net.data.formats.coco import coco_content, fill_split, parse_coco, why_dropped
from mmres2net.data.formats.voc import parse_voc
from mmres2net.data.formats.yolo import image_size, parse_yolo, read_yolo
from mmres2net.data.own.data_file import Spec
from mmres2net.data.own.splits import LABEL, Findings, by_split, head_of, text_lines, within
from mmres2net.data.own.tree import AmbiguousError, Index, Tree, split_of, words_of
from mmres2net.drawing import Color
from mmres2net.errors import UserError
from mmres2net.text import join_some

JSON_LIMIT = 4 * 2**30  # bytes
MOST_JSON = 200  # JSON files that are looked into, the largest ones: some tools write one for each image
MOST_CLASSES = 10_000  # without names
NAME_FILES = {
    'classes.txt', 'class_names.txt', 'labels.txt', 'obj.names', 'classes.names', '_darknet.labels',
}  # fmt: skip
XML = re.compile(rb'<annotation\b')


@dataclass
class Source:
    """Samples by split (None: no split is told), and how their annotations are read."""

    kind: str  # of the format, for people
    task: str
    unit: str  # what is counted by class
    samples: dict[str | None, list[Sample]]
    labels: Callable[[Sample], Sequence[str]]  # class names in a sample, one for each annotation
    parse: Callable[[Sample, Sequence[str]], Parsed] = lambda sample, classes: (sample.size, [], [])
    classes: Sequence[str] = ()  # in label order; empty: those that ``labels`` returns
    palette: Sequence[Color] = ()
    findings: Findings = field(default_factory=dict)  # what is wrong with lists and annotation files, by split
    files: dict[str | None, str] = field(default_factory=dict)  # the annotation file of a split
    read_mask: Callable[[str], np.ndarray] | None = None  # where values are not labels


def class_names(tree: Tree, spec: Spec) -> Sequence[str]:
    """Return the classes in the data file or in a file such as ``classes.txt``; none where there is none.

    Raises:
        AmbiguousError: Two files with different names.
    """
    if spec.classes:
        return spec.classes
    files = [name for name in tree.files if name.rpartition('/')[2].lower() in NAME_FILES]
    found = {tuple(text_lines(tree.path(name))): name for name in files}
    if len(found) > 1:
        raise AmbiguousError(f'these files name different classes: {", ".join(found.values())}')
    return next(iter(found), ())


# COCO: a file for each split


def coco_files(tree: Tree) -> list[str]:
    """Return the COCO files of boxes or masks in a tree; where some are named as those of instances, these alone."""
    sizes = {name: size for name in tree.ending('.json') if (size := os.stat(tree.path(name)).st_size) <= JSON_LIMIT}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_JSON]
    found = sorted(name for name in largest if _has_coco_keys(tree.path(name)))
    return [name for name in found if 'instances' in words_of(name.rpartition('/')[2])] or found


def _has_coco_keys(path: str) -> bool:
    try:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            keys = (b'"images"', b'"categories"', b'"annotations"')
            return all(data.find(key) >= 0 for key in keys) and data.find(b'"segments_info"') < 0
    except (OSError, ValueError):
        return False


def load_coco(tree: Tree, spec: Spec, notes: list[str]) -> Source:
    """Return the samples of COCO files, whose images are anywhere in the tree."""
    files: dict[str | None, list[str]] = defaultdict(list)
    for named, places in spec.places.items():
        files[named] = [place for place in places if place.lower().endswith('.json')]
        if not files[named]:
            raise UserError(f'{named} names no COCO file (.json), but {join_some(places)}')
    for name in coco_files(tree) if not spec.places else ():
        same = files[split_of(name)]
        same.append(name)
        if len(same) > 1:
            options = {'format': ['coco'], split_of(name) or 'train': same}
            raise AmbiguousError(f'these COCO files could be of the same split: {", ".join(same)}', **options)
    source = Source('COCO', 'detection', 'objects', {}, lambda sample: [str(e['category_id']) for _, e in sample.raw])
    categories: list[dict[str, Any]] = []
    for part in sorted(files, key=('train', None, 'val', 'test').index):
        splits = [_read_json(tree, spec, part, file, categories) for file in files[part]]
        source.samples[part] = [sample for split in splits for sample in split.samples]
        source.findings[part] = [finding for split in splits for finding in split.findings]
        source.files[part] = tree.path(files[part][0])
    entries = [entry for samples in source.samples.values() for sample in samples for _, entry in sample.raw]
    masks = sum(bool(entry.get('segmentation')) for entry in entries)
    source.task = 'instances' if entries and masks == len(entries) else 'detection'
    if 0 < masks < len(entries):
        notes.append(f'{len(entries) - masks:,} of {len(entries):,} objects have no mask: the data are used for boxes.')
    source.classes = spec.classes or _category_names(categories, {entry['category_id'] for entry in entries})
    names = {name: name for name in [*source.classes, *(category['name'] for category in categories)]}
    source.parse = lambda sample, classes: parse_coco(sample, names)
    return source


def _read_json(tree: Tree, spec: Spec, part: str | None, name: str, categories: list[dict[str, Any]]) -> Split:
    """Return the samples of one file, with the names of categories in place of their numbers."""
    path = tree.path(name)
    try:
        data = Path(regular_file(path, JSON_LIMIT)).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    content = coco_content(data.removeprefix(b'\xef\xbb\xbf'), path)
    folders = tuple(f'{place}/' for place in spec.places.get(part or '', ()) if not place.lower().endswith('.json'))
    images = Index(image for image in tree.images.names if image.startswith(folders)) if folders else tree.images
    wanted = [str(entry.get('file_name')) for entry in content['images'] if isinstance(entry, dict)]
    found = dict(zip(wanted, images.locate(wanted, name), strict=True))
    if wanted and not any(found.values()):
        raise UserError(f'{path} names {len(wanted):,} images, and none is below {tree.root}: {join_some(wanted)}')
    categories += content['categories']
    names = {category['id']: category['name'] for category in content['categories']}
    content['annotations'] = [_entry(i, e, names) for i, e in enumerate(content.get('annotations', []), 1)]
    split = Split(str(part), path, 'COCO')
    fill_split(content, split, lambda entry: _sample(tree, found, entry))
    return split


def _entry(number: int, entry: Any, names: Mapping[Any, str]) -> Any:
    """Return an annotation with a number of its own, the name of its category, and an area."""
    if not isinstance(entry, dict):
        return entry
    key, box = entry.get('category_id'), entry.get('bbox')
    name = names.get(key, f'{key!r}') if isinstance(key, int | float | str) else f'{key!r}'
    sides = [side for side in box[2:] if isinstance(side, int | float)] if isinstance(box, list) else []
    area = {'area': sides[0] * sides[1]} if entry.get('area') is None and len(sides) == 2 else {}
    return {**entry, 'id': number, 'category_id': name, **area}


def _sample(tree: Tree, found: Mapping[str, str | None], entry: Any) -> Sample:
    hash(entry['id'])
    name = os.fspath(entry['file_name'])
    path = tree.path(found[name] or name)
    width, height = entry.get('width'), entry.get('height')
    return Sample(path, (int(width), int(height)) if width and height else image_size(path), [])


def _category_names(categories: Sequence[dict[str, Any]], used: set[str]) -> list[str]:
    """Return the names of categories in their order, without one that only groups the others."""
    groups = {str(c.get('supercategory')) for c in categories if c.get('supercategory') != c['name']} - used
    names = list(dict.fromkeys(category['name'] for category in categories))
    return [name for name in names if name not in groups] or names


# VOC and YOLO: a file for each image


def _paired(
    tree: Tree, spec: Spec, files: Sequence[str], test: re.Pattern[bytes], kind: str, notes: list[str]
) -> tuple[dict[str | None, list[Sample]], Findings]:
    """Return all images by split, each with its annotation file as ``raw``, and a finding for each file without image.

    Of ``files``, those are annotations that begin with ``test``; ``kind`` is that of the finding.
    """
    pairs, alone = tree.images.pair(within(tree, spec, files))
    images, findings = by_split(tree, spec, 'main', pairs, notes)
    for name in alone:
        if test.search(head_of(tree.path(name))):
            part = split_of(name) if split_of(name) in images else next(iter(images), 'train')
            findings.setdefault(part, []).append(Finding(kind, tree.path(name), 'no image has its name'))
    paths = {name: tree.path(file) for name, file in pairs.items()}
    samples = {part: [Sample(tree.path(n), raw=paths.get(n, '')) for n in names] for part, names in images.items()}
    without = sum(not sample.raw for found in samples.values() for sample in found)
    notes += [f'{without:,} images have no annotation file.'] if without else []
    return samples, findings


def load_voc(tree: Tree, spec: Spec, notes: list[str]) -> Source:
    """Return the images with an XML file of the same name."""
    samples, findings = _paired(tree, spec, tree.ending('.xml'), XML, 'missing image', notes)
    samples = {part: [sample for sample in found if sample.raw] for part, found in samples.items()}
    notes.append('Difficult objects are neither trained on nor counted in evaluation, as crowds of COCO.')
    read = {sample.raw: parse_voc(sample, ())[1] for found in samples.values() for sample in found}
    labels = {path: [str(one.label) for one in found] for path, found in read.items()}
    return Source(
        'VOC', 'detection', 'objects', samples, lambda sample: labels[sample.raw], parse_own_voc, spec.classes,
        findings=findings,
    )  # fmt: skip


def parse_own_voc(sample: Sample, classes: Sequence[str]) -> Parsed:
    """Return size and objects of an XML file; a size of 0, which some tools write, counts as none."""
    size, annotations, findings = parse_voc(sample, classes, exact=True)
    size = size if size and min(size) > 0 else image_size(sample.image)
    kept = [replace(one, dropped=why_dropped(one.box, size)) if one.box else one for one in annotations]
    return size, kept, findings


def label_files(tree: Tree) -> list[str]:
    """Return the text files of a tree that are not lists of names; those of YOLO are among them."""
    return [name for name in tree.ending('.txt') if name.rpartition('/')[2].lower() not in NAME_FILES]


def load_yolo(tree: Tree, spec: Spec, notes: list[str]) -> Source:
    """Return all images, with the text file of the same name; those without one are images without objects."""
    samples, findings = _paired(tree, spec, label_files(tree), LABEL, 'annotation without image', notes)
    if not any(sample.raw for sample in samples.get('test', ())):
        notes += [f'{len(samples.pop("test")):,} test images are left out.'] if 'test' in samples else []
    classes = class_names(tree, spec)
    read = {sample.raw: read_yolo(sample.raw, ())[0] for found in samples.values() for sample in found}
    polygons = [bool(one.segmentation) for found in read.values() for one in found]
    numbers = {path: [int(str(one.label)) for one in found] for path, found in read.items()}
    if not classes:
        top = max(chain.from_iterable(numbers.values()), default=-1)
        if top >= MOST_CLASSES:
            raise UserError(f'{tree.root}: there is an object of the class {top}; write the names of the classes')
        classes = [str(number) for number in range(1 + top)]
        notes.append('No file names the classes: their numbers are their names.')
    labels = {path: [classes[number] for number in found if number < len(classes)] for path, found in numbers.items()}
    task = 'instances' if polygons and all(polygons) else 'detection'
    return Source(
        'YOLO', task, 'objects', samples, lambda sample: labels[sample.raw], parse_yolo, classes, findings=findings
    )
