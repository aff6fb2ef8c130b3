"""Boxes and masks of objects as a folder holds them: COCO, VOC and YOLO."""

import mmap
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mmres2net.data.formats.base import Annotation, Finding, Parsed, Sample, Split, image_size, in_threads, read_bytes
from mmres2net.data.formats.objects import coco_content, fill_split, parse_voc, parse_yolo, why_dropped
from mmres2net.data.own.tree import LABEL, AmbiguousError, Findings, Index, Samples, Tree, split_of, words_of
from mmres2net.drawing import Color
from mmres2net.errors import UserError
from mmres2net.text import join_some

JSON_LIMIT = 4 * 2**30  # bytes
MOST_CLASSES = 10_000  # without names
NAME_FILES = ['classes.txt', 'class_names.txt', 'labels.txt', 'obj.names', 'classes.names', '_darknet.labels']
XML = re.compile(rb'<annotation\b')


@dataclass
class Source:
    """What is read of a folder."""

    kind: str  # of the format, for people
    samples: Samples  # with their annotations, or with masks
    unit: str = 'objects'  # what is counted by class
    task: str = 'detection'
    classes: Sequence[str] = ()  # in label order; empty: those of the annotations
    palette: Sequence[Color] = ()
    findings: Findings = field(default_factory=dict)  # what is wrong with lists and annotation files, by split
    files: dict[str | None, str] = field(default_factory=dict)  # the annotation file of a split
    read_mask: Callable[[str], np.ndarray] | None = None  # where values are not labels

    def annotations(self) -> list[Annotation]:
        """Return the annotations of all samples."""
        return [one for found in self.samples.values() for sample in found for one in sample.parse()[1]]


def class_names(tree: Tree) -> Sequence[str]:
    """Return the classes in the data file or in one such as ``classes.txt``; AmbiguousError: two files differ."""
    files = [name for name in tree.files if name.rpartition('/')[2].lower() in NAME_FILES]
    found = {} if tree.spec.classes else {tuple(tree.lines(name)): name for name in files}
    if len(found) > 1:
        raise AmbiguousError(f'these files name different classes: {", ".join(found.values())}')
    if twice := next((names for names in found if len(set(names)) < len(names)), None):
        raise UserError(f'{tree.path(found[twice])} names a class more than once: {join_some(twice)}')
    return next(iter(found), tree.spec.classes)


def _with_masks(tree: Tree, source: Source) -> Source:
    objects = source.annotations()
    without = sum(not one.segmentation for one in objects)
    source.task = 'detection' if without else 'instances'
    if without < len(objects):
        tree.note(without, f'of {len(objects):,} objects have no mask: the data are used for boxes.')
    return source


# COCO: a file for each split


def coco_files(tree: Tree) -> list[str]:
    """Return the COCO files of boxes or masks in a tree; where some are named as those of instances, these alone."""
    found = [name for name in tree.ending('.json') if _has_coco_keys(tree.path(name))]
    return [name for name in found if 'instances' in words_of(name.rpartition('/')[2])] or found


def _has_coco_keys(path: str) -> bool:
    try:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            keys = (b'"images"', b'"categories"', b'"annotations"')
            return all(data.find(key) >= 0 for key in keys) and data.find(b'"segments_info"') < 0
    except (OSError, ValueError):
        return False


def load_coco(tree: Tree) -> Source:
    """Return the samples of COCO files, whose images are anywhere in the tree."""
    files: dict[str | None, list[str]] = defaultdict(list)
    for named, places in tree.spec.places.items():
        files[named] = [place for place in places if place.lower().endswith('.json')]
        if not files[named]:
            raise UserError(f'{named} names no COCO file (.json), but {join_some(places)}')
    for name in coco_files(tree) if not tree.spec.places else ():
        same = files[split_of(name)]
        same.append(name)
        if len(same) > 1:
            options = {'format': ['coco'], split_of(name) or 'train': same}
            raise AmbiguousError(f'these COCO files could be of the same split: {", ".join(same)}', **options)
    source = Source('COCO', {}, files={part: tree.path(names[0]) for part, names in files.items()})
    categories: list[dict[str, Any]] = []
    for part in sorted(files, key=('train', None, 'val', 'test').index):
        splits = [_read_json(tree, part, file, categories) for file in files[part]]
        source.samples[part] = [sample for split in splits for sample in split.samples]
        source.findings[part] = [finding for split in splits for finding in split.findings]
    source.classes = tree.spec.classes or _class_names(categories, {str(one.label) for one in source.annotations()})
    return _with_masks(tree, source)


def _read_json(tree: Tree, part: str | None, name: str, categories: list[dict[str, Any]]) -> Split:
    """Return the samples of one file, and add its categories to the others; areas that it does not state are added."""
    path, named = tree.path(name), tree.spec.places.get(part or '', ())
    content = coco_content(read_bytes(path, JSON_LIMIT).removeprefix(b'\xef\xbb\xbf'), path)
    folders = tuple(f'{place}/' for place in named if not place.lower().endswith('.json'))
    images = Index(image for image in tree.images.names if image.startswith(folders)) if folders else tree.images
    wanted = [str(entry.get('file_name')) for entry in content['images'] if isinstance(entry, dict)]
    found = dict(zip(wanted, images.locate(wanted, name), strict=True))
    if wanted and not any(found.values()):
        raise UserError(f'{path} names {len(wanted):,} images, and none is below {tree.spec.root}: {join_some(wanted)}')
    for number, entry in enumerate(content.get('annotations', ())):
        if isinstance(entry, dict):
            entry['id'], box = number, entry.get('bbox')
            if not entry.get('area') and isinstance(box, list) and len(box) == 4:
                sides = [side for side in box[2:] if isinstance(side, int | float)]
                entry['area'] = sides[0] * sides[1] if len(sides) == 2 else None
    split = Split(str(part), path, 'COCO')
    fill_split(content, split, partial(_sample, tree, found))
    for sample in split.samples:
        sample.parsed = split.parse(sample)
    categories += content['categories']
    return split


def _sample(tree: Tree, found: Mapping[str, str | None], entry: Any) -> Sample:
    name = os.fspath(entry['file_name'])
    path, width, height = tree.path(found[name] or name), entry.get('width'), entry.get('height')
    return Sample(path, (int(width), int(height)) if width and height else image_size(path), [])


def _class_names(categories: Sequence[dict[str, Any]], used: set[str]) -> list[str]:
    """Return the names of categories in their order, without one that only groups the others."""
    groups = {str(c.get('supercategory')) for c in categories if c.get('supercategory') != c['name']} - used
    names = list(dict.fromkeys(category['name'] for category in categories))
    return [name for name in names if name not in groups] or names


# VOC and YOLO: a file for each image


def _load(
    tree: Tree, kind: str, files: Sequence[str], test: re.Pattern[bytes], stray: str, parse: Callable[[Sample], Parsed]
) -> Source:
    """Return all images by split, each with its annotation file as ``raw`` and what ``parse`` reads in it.

    Of ``files``, those are annotations that begin with ``test``; one without image is a finding of the kind ``stray``.
    """
    pairs, alone = tree.images.pair(tree.within(files))
    images, findings = tree.by_split('main', pairs)
    for name in alone:
        if test.search(tree.head(name)):
            part = split_of(name) if split_of(name) in images else next(iter(images), 'train')
            findings.setdefault(part, []).append(Finding(stray, tree.path(name), 'no image has its name'))
    paths = {name: tree.path(file) for name, file in pairs.items()}
    samples = {part: [Sample(tree.path(n), raw=paths.get(n, '')) for n in names] for part, names in images.items()}
    every = [sample for found in samples.values() for sample in found]
    tree.note(sum(not sample.raw for sample in every), 'images have no annotation file.')
    for sample, parsed in zip(every, in_threads(parse, every), strict=True):
        sample.parsed = parsed
    return _with_masks(tree, Source(kind, samples, findings=findings))


def load_voc(tree: Tree) -> Source:
    """Return the images with an XML file of the same name."""
    parse = partial(_parse_xml, classes=tree.spec.classes or None)
    source = _load(tree, 'VOC', tree.ending('.xml'), XML, 'missing image', parse)
    source.samples = {part: [sample for sample in found if sample.raw] for part, found in source.samples.items()}
    source.classes = tree.spec.classes
    tree.notes.append('Difficult objects are neither trained on nor counted in evaluation, as crowds of COCO.')
    return source


def _parse_xml(sample: Sample, classes: Sequence[str] | None) -> Parsed:
    if not sample.raw:
        return None, [], []
    size, annotations, findings = parse_voc(sample, classes, exact=True)
    size = size if size and min(size) > 0 else image_size(sample.image)
    return size, [replace(a, dropped=why_dropped(a.box, size)) if a.box else a for a in annotations], findings


def label_files(tree: Tree) -> list[str]:
    """Return the text files of a tree that are not lists of names; those of YOLO are among them."""
    return [name for name in tree.ending('.txt') if name.rpartition('/')[2].lower() not in NAME_FILES]


def load_yolo(tree: Tree) -> Source:
    """Return all images, with the text file of the same name; those without one are images without objects."""
    classes, stray = class_names(tree), 'annotation without image'
    source = _load(tree, 'YOLO', label_files(tree), LABEL, stray, partial(parse_yolo, classes=classes))
    if 'test' in source.samples and not any(sample.raw for sample in source.samples['test']):
        tree.note(len(source.samples.pop('test')), 'test images are left out.')
    if not classes:
        top = max((int(str(one.label)) for one in source.annotations()), default=-1)
        if top >= MOST_CLASSES:
            raise UserError(f'{tree.spec.root}: an object is of the class {top}; write the names of the classes')
        classes = [str(number) for number in range(1 + top)]
        tree.notes.append('No file names the classes: their numbers are their names.')
    source.classes = classes
    return source
