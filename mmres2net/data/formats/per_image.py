"""An annotation file for each image: PASCAL VOC's XML and YOLO's text."""

import math
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmres2net.data.formats import base
from mmres2net.data.formats.base import Annotation, Box, Finding, Parsed, Sample, Size, Split, image_size
from mmres2net.data.formats.coco import why_dropped
from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.text import join_some

LIMIT = 32 * 2**20  # bytes of one annotation file
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
FAR = 1.5  # sizes of the image: what is further away than this is no share of its size


def read_voc(built: Any, split: Split) -> None:
    """Read the list of images of mmdet's ``XMLDataset`` into ``split``; its XML files are parsed one by one later."""
    if not split.classes:
        raise UserError('the data set has no classes; set metainfo.classes')
    names = base.read_lines(built.ann_file)
    root = Path(built.sub_data_root)
    for number, name in enumerate(names, 1):
        image, xml = root / built.img_subdir / f'{name}.jpg', root / built.ann_subdir / f'{name}.xml'
        if name.strip():
            split.samples.append(Sample(str(image), raw=str(xml), hint=_other_suffix(image)))
        else:
            what = f'line {number} is empty, and mmdet would look for an image without a name; remove it'
            split.findings.append(Finding('broken annotation', split.source, what))
    repeated = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    split.findings += [Finding('duplicate image id', split.source, name) for name in repeated]
    steps = [step for _, step in walk(split.node.get('pipeline') or [], '') if 'type' in step]
    difficult = any(str(step['type']).endswith('TrainOnDifficult') for step in steps)
    smallest = (split.node.get('filter_cfg') or {}).get('bbox_min_size')
    split.parse = lambda sample: parse_voc(sample, split.classes, smallest, train_on_difficult=difficult)
    split.check_names = lambda names: base.class_fault(split.source, names, split.classes, all_needed=False)


def _other_suffix(image: Path) -> str:
    suffixes = sorted({*base.IMAGE_SUFFIXES, *map(str.upper, base.IMAGE_SUFFIXES)})
    there = [] if image.is_file() else [path for s in suffixes if (path := image.with_suffix(s)).is_file()]
    return f'{there[0].name} is there, but XMLDataset reads .jpg alone; convert or rename it' if there else ''


def parse_voc(
    sample: Sample,
    classes: Sequence[str] | None,
    smallest: float | None = None,
    *,
    train_on_difficult: bool = False,
    exact: bool = False,
) -> Parsed:
    """Return size and objects of one annotation file.

    Args:
        sample: Its ``raw`` is the path of the file.
        classes: Those of the config; mmdet does not read on in objects of other names. None: all names.
        smallest: ``bbox_min_size`` of ``filter_cfg``: mmdet ignores boxes of fewer pixels in training.
        train_on_difficult: Difficult objects are trained on like others.
        exact: Boxes to the end of their last pixel, which mmdet leaves out, and to the fraction of a pixel.
    """
    try:
        root = ElementTree.fromstring(base.read_bytes(sample.raw, LIMIT))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        kind = 'broken annotation' if os.path.exists(sample.raw) else 'missing annotation file'
        hint = '; save it as UTF-8' if 'encoding' in str(error) else ''
        return None, [], [Finding(kind, sample.raw, f'{error}{hint}')]
    annotations, findings = [], []
    size: Size | None = None
    try:
        if root.find('size') is not None:
            size = int(root.findtext('size/width', '')), int(root.findtext('size/height', ''))
    except ValueError as error:
        findings.append(Finding('broken annotation', sample.raw, f'size: {error}'))
    for i, node in enumerate(root.iterfind('object'), 1):
        where, name, box, ignored = f'{sample.raw} object {i}', node.findtext('name'), None, False
        try:
            if not name:
                raise ValueError('no name')
            if classes is None or name in classes:
                box, difficult = _voc_box(node, exact), node.findtext('difficult', '0').strip()
                if not difficult.isdecimal():
                    raise ValueError(f'difficult is {difficult!r}, not 0 or 1')
                small = smallest is not None and min(box[2] - box[0], box[3] - box[1]) < smallest
                ignored = small or (bool(int(difficult)) and not train_on_difficult)
            annotations.append(Annotation(where, name, box, ignored=ignored))
        except (ValueError, OverflowError) as error:
            findings.append(Finding('broken annotation', where, str(error)))
    return size, annotations, findings


def _voc_box(node: ElementTree.Element, exact: bool) -> Box:
    texts = [node.findtext(f'bndbox/{side}') for side in SIDES]
    if any(text is None for text in texts):
        raise ValueError(f'no bndbox with {", ".join(SIDES)}')
    x1, y1, x2, y2 = (float(text or '') for text in texts)  # from 1, and to the last pixel, which mmdet leaves out
    return (x1 - 1, y1 - 1, x2, y2) if exact else (int(x1) - 1, int(y1) - 1, int(x2) - 1, int(y2) - 1)


def parse_yolo(sample: Sample, classes: Sequence[str]) -> Parsed:
    """Return size and objects of one image in pixels: a line an object, in shares of the image's size.

    Args:
        sample: Its ``raw`` is the path of the text file; empty: an image without objects. The file of an image that
            cannot be read is not read either.
        classes: Their names; empty: the numbers are the names.
    """
    size = image_size(sample.image)
    if size is None or not sample.raw:
        return size, [], []
    try:
        text = base.read_text(sample.raw, LIMIT)
    except UserError as error:
        return size, [], [Finding('broken annotation', sample.raw, str(error))]
    objects, findings = [], []
    for number, line in enumerate(text.splitlines(), 1):
        where, fields = f'{sample.raw} line {number}', line.split()
        try:
            objects += [_yolo_object(where, fields, classes, size)] if fields else []
        except IndexError:
            what = f'{fields[0]}; there are {len(classes)} classes, numbered from 0: {join_some(classes)}'
            findings.append(Finding('label without class', where, what))
        except (ValueError, OverflowError) as error:
            findings.append(Finding('broken annotation', where, str(error)))
    return size, objects, findings


def _yolo_object(where: str, fields: Sequence[str], classes: Sequence[str], size: Size) -> Annotation:
    number, *shares = (float(field) for field in fields)
    if not number.is_integer() or number < 0:
        raise ValueError(f'the class is {fields[0]!r}, not a whole number from 0 on')
    label = classes[int(number)] if classes else f'{int(number)}'
    if len(shares) < 4 or len(shares) % 2:
        raise ValueError(f'{len(fields)} numbers; write CLASS X Y WIDTH HEIGHT, or CLASS and the points of a polygon')
    if not all(abs(share - 0.5) <= FAR for share in shares):
        raise ValueError(f'{join_some(fields[1:])}: boxes and points are shares of the image size, between 0 and 1')
    values = [share * size[i % 2] for i, share in enumerate(shares)]
    if len(values) == 4:
        x, y, width, height = values
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        return Annotation(where, label, box, dropped=why_dropped(box, size))
    xs, ys = values[::2], values[1::2]
    box = min(xs), min(ys), max(xs), max(ys)
    area = abs(math.fsum(x * (ys[(i + 1) % len(ys)] - ys[i - 1]) for i, x in enumerate(xs))) / 2
    return Annotation(where, label, box, [values], why_dropped(box, size), area=area)
