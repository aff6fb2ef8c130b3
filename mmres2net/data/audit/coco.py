"""Read COCO's annotation format for an audit: every entry, also those that mmdet drops without a word."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmres2net.data.audit.report import Finding
from mmres2net.data.audit.split import Parsed, Sample, Split, Thing, misfit
from mmres2net.data.check import check_categories
from mmres2net.errors import UserError


def read_coco(built: Any, split: Split) -> None:
    """Read a COCO file into ``split``.

    Raises:
        UserError: It is not one.
    """
    try:
        content = json.loads(Path(built.ann_file).read_bytes())
        entries, annotations = content['images'], content.get('annotations', [])
        names = {category['id']: str(category['name']) for category in content['categories']}
        if not isinstance(entries, list) or not isinstance(annotations, list):
            raise TypeError('images and annotations have to be lists')
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'not a COCO annotation file: {type(error).__name__} {error}') from error
    categories = list(names.values())
    split.findings += misfit(split.source, lambda: check_categories(Path(split.source), categories, split.classes))
    by_id: dict[Any, Sample] = {}
    for i, entry in enumerate(entries):
        sample = _coco_sample(built, split, entry, f'images[{i}]')
        if sample is None:
            continue
        if entry['id'] in by_id:
            split.findings.append(Finding('duplicate image id', f'images[{i}]', f'{entry["id"]} ({sample.image})'))
        by_id[entry['id']] = sample
        split.samples.append(sample)
    _deal_out(annotations, by_id, split)
    split.things = lambda sample: coco_things(sample, names)


def _coco_sample(built: Any, split: Split, entry: Any, where: str) -> Sample | None:
    try:
        hash(entry['id'])
        file_name, size = os.fspath(entry['file_name']), (int(entry['width']), int(entry['height']))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        split.findings.append(Finding('broken annotation', where, _reason(error)))
        return None
    mask = built.data_prefix.get('seg')
    if mask:
        mask = os.path.join(mask, file_name.rsplit('.', 1)[0] + built.seg_map_suffix)
    return Sample(os.path.join(built.data_prefix['img'], file_name), size, [], mask or '')


def _deal_out(annotations: Iterable[Any], by_id: dict[Any, Sample], split: Split) -> None:
    """Give each annotation to its image, as (position in the file, entry)."""
    seen: set[Any] = set()
    for i, entry in enumerate(annotations):
        where = f'annotations[{i}]'
        try:
            identity, image_id = entry['id'], entry['image_id']
            if identity in seen:
                split.findings.append(Finding('duplicate annotation id', where, str(identity)))
            seen.add(identity)
            if image_id in by_id:
                by_id[image_id].raw.append((i, entry))
            else:
                split.findings.append(Finding('annotation without image', where, f'image_id {image_id}'))
        except (KeyError, TypeError) as error:
            split.findings.append(Finding('broken annotation', where, _reason(error)))


def coco_things(sample: Sample, names: dict[Any, str]) -> Parsed:
    things, findings = [], []
    for i, entry in sample.raw:
        where = f'{sample.image} annotations[{i}]'
        try:
            x, y, width, height = (float(value) for value in entry['bbox'])
            float(entry['area'])
            label = names.get(entry['category_id'])
            crowd, segmentation = bool(entry.get('iscrowd')), entry.get('segmentation')
        except (KeyError, TypeError, ValueError) as error:
            findings.append(Finding('broken annotation', where, _reason(error)))
            continue
        if label is None:
            findings.append(Finding('label without class', where, f'category_id {entry["category_id"]}'))
        things.append(Thing(where, label, (x, y, x + width, y + height), segmentation, crowd))
    return sample.size, things, findings


def _reason(error: Exception) -> str:
    return f'no {error.args[0]!r}' if isinstance(error, KeyError) else str(error)
