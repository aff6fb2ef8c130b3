"""PASCAL VOC's XML: a list of images and an annotation file for each, as mmdet's ``XMLDataset`` reads them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmres2net.data.formats.base import (
    IMAGE_SUFFIXES,
    Annotation,
    Finding,
    Parsed,
    Sample,
    Size,
    Split,
    read_lines,
    regular_file,
    similar_class,
)
from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.text import join_some

XML_LIMIT = 32 * 2**20  # bytes of one annotation file
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(built: Any, split: Split) -> None:
    """Read the list of a VOC-style split into ``split``; its XML files are parsed one by one later.

    Raises:
        UserError: There is no list that can be read, or the config names no classes.
    """
    if not split.classes:
        raise UserError('the data set has no classes; set metainfo.classes')
    names = read_lines(Path(built.ann_file))
    root = Path(built.sub_data_root)
    for number, name in enumerate(names, 1):
        if not name.strip():
            what = f'line {number} is empty, and mmdet would look for an image without a name; remove it'
            split.findings.append(Finding('broken annotation', split.source, what))
            continue
        image, xml = root / built.img_subdir / f'{name}.jpg', root / built.ann_subdir / f'{name}.xml'
        split.samples.append(Sample(str(image), raw=str(xml), hint=_other_suffix(image)))
    repeated = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    split.findings += [Finding('duplicate image id', split.source, name) for name in repeated]
    steps = [step for _, step in walk(split.node.get('pipeline') or [], '') if 'type' in step]
    difficult = any(str(step['type']).endswith('TrainOnDifficult') for step in steps)
    smallest = (split.node.get('filter_cfg') or {}).get('bbox_min_size')
    split.parse = lambda sample: parse_voc(sample, split.classes, smallest, train_on_difficult=difficult)
    split.check_names = lambda names: vocabulary_fault(split.source, names, split.classes)


def _other_suffix(image: Path) -> str:
    if image.is_file():
        return ''
    others = sorted({*IMAGE_SUFFIXES, *(s.upper() for s in IMAGE_SUFFIXES)})
    there = next((image.with_name(image.stem + s) for s in others if image.with_name(image.stem + s).is_file()), None)
    return f'{there.name} is there, but XMLDataset reads .jpg alone; convert or rename it' if there else ''


def vocabulary_fault(source: str, found: Iterable[str], classes: Sequence[str]) -> str:
    """Return why the names of all objects of a split are those of another vocabulary; empty if they are not.

    A class without an object is a small split, an unknown name a wanted subset; both at once, or no known name at all,
    is another vocabulary. Names that are spelled almost alike are reported one by one.
    """
    names = set(found)
    unknown = sorted(name for name in names - set(classes) if similar_class(name, classes) is None)
    absent = [name for name in classes if name not in names]
    if not unknown or (names & set(classes) and not absent):
        return ''
    return (
        f'{source} has no category for {len(absent)} of the {len(classes)} classes in the config: {join_some(absent)}; '
        f'it has {join_some(sorted(names))}. Set metainfo.classes of the data sets and num_classes of the heads to the '
        'names in the annotations'
    )


def parse_voc(
    sample: Sample,
    classes: Sequence[str],
    smallest: float | None = None,
    *,
    train_on_difficult: bool = False,
    exact: bool = False,
) -> Parsed:
    """Return size and objects of one annotation file.

    Args:
        sample: Its ``raw`` is the path of the file.
        classes: Those of the config; mmdet does not read on in objects of other names.
        smallest: ``bbox_min_size`` of ``filter_cfg``: mmdet ignores boxes of fewer pixels in training.
        train_on_difficult: Difficult objects are trained on like others.
        exact: Boxes to the end of their last pixel, which mmdet leaves out, and to the fraction of a pixel.
    """
    try:
        root = ElementTree.fromstring(Path(regular_file(sample.raw, XML_LIMIT)).read_bytes())
    except FileNotFoundError as error:
        return None, [], [Finding('missing annotation file', sample.raw, str(error.strerror))]
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        hint = '; save it as UTF-8' if 'encoding' in str(error) else ''
        return None, [], [Finding('broken annotation', sample.raw, f'{error}{hint}')]
    annotations, findings = [], []
    size: Size | None = None
    try:
        if root.find('size') is not None:
            size = int(root.findtext('size/width', '')), int(root.findtext('size/height', ''))
    except ValueError as error:
        findings.append(Finding('broken annotation', sample.raw, f'size: {error}'))
    for i, node in enumerate(root.iterfind('object'), 1):
        where = f'{sample.raw} object {i}'
        try:
            annotations.append(_annotation(node, where, classes, smallest, train_on_difficult, exact))
        except (ValueError, OverflowError) as error:
            findings.append(Finding('broken annotation', where, str(error)))
    return size, annotations, findings


def _annotation(
    node: ElementTree.Element,
    where: str,
    classes: Sequence[str],
    smallest: float | None,
    train_on_difficult: bool,
    exact: bool,
) -> Annotation:
    name = node.findtext('name')
    if not name:
        raise ValueError('no name')
    if name not in classes:
        return Annotation(where, name)
    texts = [node.findtext(f'bndbox/{side}') for side in SIDES]
    if any(text is None for text in texts):
        raise ValueError(f'no bndbox with {", ".join(SIDES)}')
    sides = [float(text or '') for text in texts]  # VOC counts from 1, and to the last pixel, which mmdet leaves out
    x1, y1, x2, y2 = (sides[0] - 1, sides[1] - 1, *sides[2:]) if exact else (int(side) - 1 for side in sides)
    marked = node.findtext('difficult')
    try:
        difficult = bool(int(marked)) if marked is not None else False
    except ValueError as error:
        raise ValueError(f'difficult is {marked!r}, not 0 or 1') from error
    small = smallest is not None and min(x2 - x1, y2 - y1) < smallest
    return Annotation(where, name, (x1, y1, x2, y2), ignored=small or (difficult and not train_on_difficult))
