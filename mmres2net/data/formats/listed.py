"""Every other data set: its own class lists the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmres2net.data.formats.base import Annotation, Finding, Parsed, Sample, Split
from mmres2net.data.formats.masks import suffix_notes
from mmres2net.errors import UserError


def read_listed(built: Any, split: Split) -> None:
    """Read the samples that a data set object lists into ``split``.

    Raises:
        UserError: It cannot list them, or they are not single images.
    """
    infos = built.load_data_list()
    classes = (built.metainfo or {}).get('classes') or split.classes  # folders may name them
    split.classes = tuple(classes)
    for info in infos:
        image, mask = info.get('img_path') or '', info.get('seg_map_path') or ''
        if not isinstance(image, str) or (not image and 'img' not in info):
            raise UserError(f'{split.dataset} gives samples that are not single images, which cannot be checked here')
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        raw = info.get('instances', info.get('gt_label'))
        split.samples.append(Sample(image, size, raw, mask, None if image else info['img']))
    if hasattr(built, 'read_mask'):
        split.unit, split.mask_values = 'pixels', dict(enumerate(split.classes))
        split.read_mask, split.image_fault = built.read_mask, built.image_fault
        split.findings += suffix_notes(built, ignore_case=True)
    elif infos and 'instances' in infos[0]:
        split.parse = lambda sample: _parse_instances(sample, split.classes)
    else:
        split.unit, split.parse = 'images', lambda sample: _parse_labels(sample, split.classes)


def _class_of(index: Any, classes: Sequence[str]) -> str | None:
    if not classes:
        return str(index)
    return classes[index] if isinstance(index, int) and 0 <= index < len(classes) else None


def _parse_instances(sample: Sample, classes: Sequence[str]) -> Parsed:
    annotations, findings = [], []
    for i, entry in enumerate(sample.raw or ()):
        where = f'{sample.image} object {i + 1}'
        label = _class_of(entry.get('bbox_label'), classes)
        if label is None:
            findings.append(Finding('label without class', where, str(entry.get('bbox_label'))))
        numbers = entry.get('bbox')
        box = None
        if numbers is not None and len(numbers) == 4:
            x1, y1, x2, y2 = map(float, numbers)
            box = x1, y1, x2, y2
        annotations.append(Annotation(where, label, box, entry.get('mask'), ignored=bool(entry.get('ignore_flag'))))
    return sample.size, annotations, findings


def _parse_labels(sample: Sample, classes: Sequence[str]) -> Parsed:
    indices = [] if sample.raw is None else np.atleast_1d(sample.raw).tolist()
    labels = [(index, _class_of(index, classes)) for index in indices]
    findings = [Finding('label without class', sample.image, str(index)) for index, label in labels if label is None]
    return sample.size, [Annotation(sample.image, label) for _, label in labels], findings
