"""Boxes and masks of objects in COCO's JSON, VOC's XML and YOLO's text, with what mmdet would do with each.

The metric reads its truth through the same functions.
"""

import json
import math
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmres2net.data.formats import base
from mmres2net.data.formats.base import Annotation, Box, Finding, Parsed, Sample, Size, Split
from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.text import join_some

Entry = dict[str, Any]
IGNORE = 'ignore is set'
CROWD = {'0': False, 'false': False, '': False, '0.0': False, '1': True, 'true': True, '1.0': True}
LIMIT = 32 * 2**20  # bytes of one annotation file
SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
FAR = 1.5  # sizes of the image: what is further away than this is no share of its size


def coco_content(data: bytes | str, source: str) -> Entry:
    """Return a COCO file's content with lists of images, categories and maybe annotations, or raise a UserError."""
    wrong = f'{source} is not a COCO annotation file'
    try:
        # Strictly UTF-8 without a byte order mark: pycocotools, by which mmdet reads the file, takes nothing else.
        content = json.loads(data.decode('utf-8') if isinstance(data, bytes) else data)
    except RecursionError as error:
        raise UserError(f'{wrong}: its JSON is nested too deeply') from error
    except ValueError as error:
        raise UserError(f'{wrong}: not JSON ({error})') from error
    if not isinstance(content, dict):
        raise UserError(f'{wrong}: a {type(content).__name__} instead of an object')
    for key, default in (('images', None), ('categories', None), ('annotations', [])):
        if not isinstance(content.get(key, default), list):
            raise UserError(f'{wrong}: {key!r} is not a list, or not there')
    for i, category in enumerate(content['categories']):
        name = category.get('name') if isinstance(category, dict) else None
        if not isinstance(name, str) or not name.strip() or 'id' not in category:
            raise UserError(f'{source}: categories[{i}] is {category!r}; it needs an id and a name')
        if not isinstance(category['id'], int | float | str):
            raise UserError(f'{source}: categories[{i}] has the id {category["id"]!r}; write a number')
    return content


def category_fault(categories: Sequence[Entry], classes: Sequence[str], source: str) -> str:
    """Return why a COCO file's categories cannot be those of ``classes``, in this order; empty if they can.

    mmdet's ``CocoDataset`` numbers labels in the file's order and takes every category whose name is a class.
    """
    names = [category['name'] for category in categories]
    if twice := [name for name in classes if names.count(name) > 1]:
        ids = [category['id'] for category in categories if category['name'] == twice[0]]
        return f'{source} has {len(ids)} categories {twice[0]!r}, ids {join_some(ids)}; merge them, or rename one'
    if same := [number for number, count in Counter(category['id'] for category in categories).items() if count > 1]:
        return f'{source} has two categories of the id {same[0]}; give each its own'
    if fault := base.class_fault(source, names, classes, all_needed=True):
        return fault
    order = [name for name in names if name in classes]
    if order != list(classes):
        orders = f'{join_some(order)}, not {join_some(classes)}'
        return f'{source}: labels follow the order of the file, {orders}; write metainfo.classes in that order'
    return ''


def read_box(entry: Mapping[str, Any]) -> Box:
    """Return left, top, right, bottom of ``bbox`` (x, y, width, height), maybe not finite; ValueError: no numbers."""
    box = entry.get('bbox')
    numbers = [v for v in box if isinstance(v, int | float)] if isinstance(box, list | tuple) else []
    if len(numbers) != 4 or len(numbers) != len(box or ()):
        raise ValueError(f'bbox is {box!r}, not four numbers' if 'bbox' in entry else "no 'bbox'")
    try:
        x, y, width, height = map(float, numbers)
    except OverflowError as error:
        raise ValueError(f'bbox: {error}') from error
    return x, y, x + width, y + height


def read_crowd(entry: Mapping[str, Any]) -> bool:
    """Return whether an annotation marks a crowd, also by text such as '0'; ValueError: neither 0 nor 1."""
    value = entry.get('iscrowd') or 0
    text = str(value).strip().lower()
    if text not in CROWD:
        raise ValueError(f'iscrowd is {value!r}, not 0 or 1')
    return CROWD[text]


def read_coco(built: Any, split: Split) -> None:
    """Read a COCO file into ``split``, or raise a UserError."""
    fill_split(coco_content(base.read_bytes(built.ann_file), split.source), split, partial(_sample, built))


def fill_split(content: Entry, split: Split, sample_of: Callable[[Any], Sample]) -> None:
    """Add a COCO file's samples, by ``sample_of`` an entry, with annotations as (position in the file, entry)."""
    fault = category_fault(content['categories'], split.classes, split.source)
    split.findings += [Finding('classes do not fit', split.source, fault)] if fault else []
    by_id: dict[Any, Sample] = {}
    files: dict[str, int] = {}
    for i, entry in enumerate(content['images']):
        where = f'images[{i}]'
        try:
            sample = sample_of(entry)
            if entry['id'] in by_id:
                split.findings.append(Finding('duplicate image id', where, f'{entry["id"]} ({sample.image})'))
            if sample.image in files:
                what = f'{sample.image}, as images[{files[sample.image]}]; merge them'
                split.findings.append(Finding('duplicate image', where, what))
            by_id[entry['id']], files[sample.image] = sample, i
            split.samples.append(sample)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            split.findings.append(Finding('broken annotation', where, _reason(error)))
    seen: dict[Any, int] = {}
    for i, entry in enumerate(content.get('annotations', [])):
        where = f'annotations[{i}]'
        try:
            identity, image_id = entry['id'], entry['image_id']
            if identity in seen:
                what = f'id {identity!r}, as annotations[{seen[identity]}]; number them anew'
                split.findings.append(Finding('duplicate annotation id', where, what))
            seen[identity] = i
            if image_id in by_id:
                by_id[image_id].raw.append((i, entry))
            else:
                split.findings.append(Finding('annotation without image', where, f'image_id {image_id!r}'))
        except (KeyError, TypeError) as error:
            split.findings.append(Finding('broken annotation', where, _reason(error)))
    names = {category['id']: category['name'] for category in content['categories']}
    split.parse = lambda sample: _parse(sample, names)


def _sample(built: Any, entry: Any) -> Sample:
    file_name, sides = os.fspath(entry['file_name']), (entry['width'], entry['height'])
    if not all(isinstance(side, int | float) for side in sides):
        raise ValueError(f'width and height are {sides[0]!r} and {sides[1]!r}, not numbers')
    mask = built.data_prefix.get('seg')
    if mask:
        mask = os.path.join(mask, file_name.rsplit('.', 1)[0] + built.seg_map_suffix)
    image = os.path.join(built.data_prefix['img'], file_name)
    return Sample(image, (int(sides[0]), int(sides[1])), [], mask or '')


def _parse(sample: Sample, names: Mapping[Any, str]) -> Parsed:
    annotations, findings = [], []
    for i, entry in sample.raw:
        where = f'{sample.image} annotations[{i}]'
        try:
            box, crowd, category = read_box(entry), read_crowd(entry), entry['category_id']
            if isinstance(entry.get('iscrowd'), str):
                raise ValueError(f'iscrowd is the text {entry["iscrowd"]!r}, which mmdet reads as true; write a number')
            if not isinstance(entry['area'], int | float) or not -math.inf < entry['area'] < math.inf:
                raise ValueError(f'area is {entry["area"]!r}, not a finite number')
            label = names.get(category)
        except (KeyError, TypeError, ValueError) as error:
            findings.append(Finding('broken annotation', where, _reason(error)))
            continue
        if label is None:
            findings.append(Finding('label without class', where, f'category_id {category!r}'))
        dropped = why_dropped(box, sample.size) or (f'area is {entry["area"]:g}' if entry['area'] <= 0 else '')
        dropped = dropped or (IGNORE if entry.get('ignore') else '')
        mask = entry.get('segmentation')
        annotations.append(Annotation(where, label, box, mask, dropped, crowd, crowd, entry['area']))
    return sample.size, annotations, findings


def why_dropped(box: Box, size: Size | None) -> str:
    """Return why mmdet's ``CocoDataset`` leaves out an object with this box; empty where it does not."""
    if not all(map(math.isfinite, box)):
        return ''  # an error whatever becomes of it
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return base.box_text(box)
    if size is not None and base.is_outside(box, size):
        return f'{base.box_text(box)}, outside the image of {size[0]}x{size[1]}'
    return ''


def _reason(error: Exception) -> str:
    return f'no {error.args[0]!r}' if isinstance(error, KeyError) else str(error)


# An annotation file for each image: VOC and YOLO


def read_voc(built: Any, split: Split) -> None:
    """Read the list of images of mmdet's ``XMLDataset`` into ``split``; its XML files are parsed one by one later."""
    if not split.classes:
        raise UserError('the data set has no classes; set metainfo.classes')
    names = base.read_lines(built.ann_file)
    root = Path(built.sub_data_root)
    for number, name in enumerate(names, 1):
        image, xml = root / built.img_subdir / f'{name}.jpg', root / built.ann_subdir / f'{name}.xml'
        if name.strip():
            split.samples.append(Sample(str(image), raw=str(xml)))
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


def parse_voc(
    sample: Sample,
    classes: Sequence[str] | None,
    smallest: float | None = None,
    *,
    train_on_difficult: bool = False,
    exact: bool = False,
) -> Parsed:
    """Return size and objects of the annotation file ``sample.raw``: all, or as in mmdet those of ``classes``.

    mmdet ignores boxes of fewer pixels than ``smallest`` (``bbox_min_size`` of ``filter_cfg``) in training, and
    difficult objects. ``exact`` boxes go to the end of their last pixel, which mmdet leaves out, and to the fraction of
    a pixel.
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
                texts = [node.findtext(f'bndbox/{side}') for side in SIDES]
                if None in texts:
                    raise ValueError(f'no bndbox with {", ".join(SIDES)}')
                x1, y1, x2, y2 = (float(text or '') for text in texts)  # from 1, with the last pixel, unlike in mmdet
                difficult = node.findtext('difficult', '0').strip()
                box = (x1 - 1, y1 - 1, x2, y2) if exact else (int(x1) - 1, int(y1) - 1, int(x2) - 1, int(y2) - 1)
                if not difficult.isdecimal():
                    raise ValueError(f'difficult is {difficult!r}, not 0 or 1')
                small = smallest is not None and min(box[2] - box[0], box[3] - box[1]) < smallest
                ignored = small or (bool(int(difficult)) and not train_on_difficult)
            annotations.append(Annotation(where, name, box, ignored=ignored))
        except (ValueError, OverflowError) as error:
            findings.append(Finding('broken annotation', where, str(error)))
    return size, annotations, findings


def parse_yolo(sample: Sample, classes: Sequence[str]) -> Parsed:
    """Return size and objects, in pixels, of the text file ``sample.raw``: lines of shares of the image's size.

    Without ``classes`` the numbers are the names. The file of an image that cannot be read is not read either.
    """
    size = base.image_size(sample.image)
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
