"""COCO's JSON: every entry, also those that mmdet leaves out, with what mmdet would do with it.

The metric reads its truth through the same functions.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mmres2net.data.formats.base import Annotation, Box, Finding, Parsed, Sample, Size, Split, class_fault, read_bytes
from mmres2net.errors import UserError
from mmres2net.text import join_some

Entry = dict[str, Any]
IGNORE = 'ignore is set'
CROWD = {'0': False, 'false': False, '': False, '0.0': False, '1': True, 'true': True, '1.0': True}


def coco_content(data: bytes | str, source: str) -> Entry:
    """Return the content of a COCO annotation file with lists of images, categories and, unless absent, annotations.

    Raises:
        UserError: It is no such file.
    """
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
        if not isinstance(category, dict) or not isinstance(category.get('name'), str) or 'id' not in category:
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
        return (
            f'{source} has {len(ids)} categories named {twice[0]!r} (ids {", ".join(map(str, ids))}), and mmdet would '
            'number each of them as a class; merge them, or rename the one that is not used'
        )
    if same := [number for number, count in Counter(category['id'] for category in categories).items() if count > 1]:
        return f'{source} has two categories of the id {same[0]}; give each its own'
    if fault := class_fault(source, names, classes, all_needed=True):
        return fault
    order = [name for name in names if name in classes]
    if order != list(classes):
        return (
            f'{source} lists its categories in another order than the config, and labels follow the file: '
            f'file {join_some(order)}; config {join_some(classes)}; write metainfo.classes in the order of the file'
        )
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
    fill_split(coco_content(read_bytes(built.ann_file), split.source), split, partial(_sample, built))


def fill_split(content: Entry, split: Split, sample_of: Callable[[Any], Sample]) -> None:
    """Add the samples of a COCO file to ``split``, each with its annotations as (position in the file, entry).

    ``sample_of`` returns the sample of an entry in the list of images.
    """
    fault = category_fault(content['categories'], split.classes, split.source)
    split.findings += [Finding('classes do not fit', split.source, fault)] if fault else []
    by_id: dict[Any, Sample] = {}
    for i, entry in enumerate(content['images']):
        where = f'images[{i}]'
        try:
            sample = sample_of(entry)
            if entry['id'] in by_id:
                split.findings.append(Finding('duplicate image id', where, f'{entry["id"]} ({sample.image})'))
            by_id[entry['id']] = sample
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
    hint = 'its name has backslashes: write it with /' if '\\' in file_name else ''
    return Sample(image, (int(sides[0]), int(sides[1])), [], mask or '', hint=hint)


def _parse(sample: Sample, names: Mapping[Any, str]) -> Parsed:
    """Return the objects of one sample, each with what mmdet makes of it."""
    annotations, findings = [], []
    for i, entry in sample.raw:
        where = f'{sample.image} annotations[{i}]'
        try:
            box, crowd, category = read_box(entry), read_crowd(entry), entry['category_id']
            if isinstance(entry.get('iscrowd'), str):
                raise ValueError(f'iscrowd is the text {entry["iscrowd"]!r}, which mmdet reads as true; write a number')
            if not isinstance(entry['area'], int | float):
                raise ValueError(f'area is {entry["area"]!r}, not a number')
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
    x1, y1, x2, y2 = box
    extent = f'{x1:g}, {y1:g} to {x2:g}, {y2:g}: {x2 - x1:g} wide, {y2 - y1:g} high'
    if x2 - x1 < 1 or y2 - y1 < 1:
        return extent
    if size is not None and (min(x2, size[0]) <= max(x1, 0) or min(y2, size[1]) <= max(y1, 0)):
        return f'{extent}, outside the image of {size[0]}x{size[1]}'
    return ''


def _reason(error: Exception) -> str:
    return f'no {error.args[0]!r}' if isinstance(error, KeyError) else str(error)
