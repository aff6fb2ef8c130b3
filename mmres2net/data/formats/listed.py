"""Data sets whose own class lists the samples: semantic masks, and whatever no other reader knows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmres2net.data.formats.base import Annotation, Finding, Parsed, Sample, Split, left_out, read_lines
from mmres2net.errors import UserError

IGNORED = 255  # mmseg turns to this value what it leaves out, whatever the ignore index


def read_listed(built: Any, split: Split) -> None:
    """Read the samples that a data set object lists into ``split``; a UserError where they are not single images."""
    semantic, salient = hasattr(built, 'reduce_zero_label'), hasattr(built, 'read_mask')
    if semantic and built.ann_file and not Path(built.ann_file).is_dir():
        read_lines(built.ann_file)  # says what is wrong with the text
    infos = built.load_data_list()
    split.classes = tuple((built.metainfo or {}).get('classes') or split.classes)  # folders may name them
    for info in infos:
        image = info.get('img_path') or ''
        if not isinstance(image, str) or (not image and 'img' not in info):
            raise UserError(f'{split.dataset} gives samples that are not single images, which cannot be checked here')
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        raw, mask = info.get('instances', info.get('gt_label')), info.get('seg_map_path') or ''
        split.samples.append(Sample(image, size, raw, mask, None if image else info['img']))
    if semantic or salient:
        split.unit, split.mask_values = 'pixels', mask_values(built) if semantic else dict(enumerate(split.classes))
        split.read_mask, split.image_fault = getattr(built, 'read_mask', None), getattr(built, 'image_fault', None)
        images, masks = (str(built.data_prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
        if images and not built.ann_file:
            together = bool(masks) and Path(masks).is_relative_to(images)
            suffixes = (built.img_suffix, built.seg_map_suffix) if together else (built.img_suffix,)
            split.findings += left_out(Path(images), suffixes, ignore_case=salient)
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


def mask_values(built: Any) -> dict[int, str]:
    """Return what each value in the mask files of an mmseg data set stands for: a class name, or '' for ignored."""
    classes, zero = built.metainfo.get('classes') or (), int(built.reduce_zero_label)
    values = {IGNORED: ''} if zero or built.label_map is not None else {}
    values |= {built.ignore_index: '', **({0: ''} if zero else {})}
    if built.label_map is None:
        return values | {i + zero: name for i, name in enumerate(classes)}
    return values | {old + zero: classes[new] if new < len(classes) else '' for old, new in built.label_map.items()}


def value_counts(image: Image.Image) -> Counter[int] | None:
    """Return how many pixels of a mask have which value, as mmseg reads it; None where it has several channels."""
    if image.mode in ('L', 'P'):
        return Counter({value: count for value, count in enumerate(image.histogram()) if count})
    if len(image.getbands()) > 1:
        return None
    values, numbers = np.unique(np.asarray(image), return_counts=True)  # also of bool, which is 0 and 1
    return Counter({int(value): int(number) for value, number in zip(values, numbers, strict=True)})


def binary_fault(split: Split, values: Counter[int]) -> Finding | None:
    """Return an error if the masks of a split with two classes hold 0 and 255 alone, where 255 is ignored."""
    names = {name for name in split.mask_values.values() if name}
    if len(names) > 2 or not set(values) <= {0, IGNORED} or IGNORED not in values or split.mask_values.get(IGNORED):
        return None
    what = (
        f'the masks hold 0 and {IGNORED}, and {IGNORED} is ignored, so that no pixel of {split.classes[-1]!r} is left; '
        'save them with the numbers of the classes, such as 0 and 1'
    )
    return Finding('masks of 0 and 255', split.source, what)
