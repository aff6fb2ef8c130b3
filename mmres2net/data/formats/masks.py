"""Semantic masks: what the values in mask files mean to mmseg and to data sets of salient objects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmres2net.data.formats.base import Finding, Sample, Split, left_out, read_lines

IGNORED = 255  # mmseg turns to this value what it leaves out, whatever the ignore index


def read_masks(built: Any, split: Split) -> None:
    """Read an mmseg data set, which a list or a folder names, into ``split``.

    Raises:
        UserError: The list cannot be read.
    """
    split.unit, split.mask_values = 'pixels', mask_values(built)
    if built.ann_file and not Path(built.ann_file).is_dir():
        read_lines(Path(built.ann_file))  # says what is wrong with the text
    infos = built.load_data_list()
    split.findings += suffix_notes(built)
    split.samples = [Sample(info['img_path'], mask=info.get('seg_map_path') or '') for info in infos]


def suffix_notes(built: Any, *, ignore_case: bool = False) -> list[Finding]:
    """Return a note on the files of an image folder that a data set without a list does not read."""
    images, masks = (str(built.data_prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
    if built.ann_file or not images:
        return []
    together = bool(masks) and Path(masks).is_relative_to(images)
    suffixes = (built.img_suffix, built.seg_map_suffix) if together else (built.img_suffix,)
    note = left_out(Path(images), suffixes, ignore_case=ignore_case)
    return [note] if note else []


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
