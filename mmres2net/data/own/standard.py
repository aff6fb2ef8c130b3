"""Own data in the one form that training reads, whatever their layout."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmres2net.data.check.before import fingerprint
from mmres2net.data.check.report import ERRORS
from mmres2net.data.formats.base import Annotation, Finding, Sample, Size, Split
from mmres2net.data.formats.coco import IGNORE
from mmres2net.data.formats.yolo import image_size
from mmres2net.data.own.images import holds_labels, read_labels
from mmres2net.data.own.splits import in_threads
from mmres2net.errors import UserError
from mmres2net.files import atomic_path, writable_dir, write_atomic
from mmres2net.text import join_some

if TYPE_CHECKING:
    from mmres2net.data.own.dataset import OwnData, OwnSplit

STATE = 'standard.json'


def write_standard(data: OwnData, folder: Path) -> OwnData:
    """Write ``data`` in the standard form into ``folder`` and return them with ``annotation`` pointing at these files.

    The files are ``train``, ``val`` and, where there is one, ``test``, with the suffix

    - ``.json`` for detection and instances: COCO, integer ids from 1, categories with the ids 1, 2, ... in label order,
      ``file_name`` relative to ``data.root``; difficult objects of VOC are crowds, so that they are neither trained on
      nor counted;
    - ``.txt`` for segmentation: a line ``IMAGE<tab>MASK`` for each image, as ``mmres2net.PairedSegDataset`` reads it;
      image paths are relative to ``data.root``, masks are single-channel class indices, 255 is ignored: those of the
      source (a path relative to ``data.root``), or converted below ``folder/masks`` (an absolute path);
    - ``.txt`` for classification: a line ``IMAGE INDEX``, as mmpretrain's ``CustomDataset`` reads it with ``ann_file``.

    Files are replaced atomically. Where neither data nor version have changed, the files that are there are used.

    Raises:
        UserError: An annotation that cannot be converted (the message lists the first ones), or a folder that cannot be
            written to.
    """
    folder = writable_dir(folder, 'folder of the data').resolve()
    suffix = '.json' if data.task in ('detection', 'instances') else '.txt'
    files = {n: folder / f'{split.source.part.split(",")[0]}{suffix}' for n, split in data.splits.items()}
    sources = [split.source for split in data.splits.values()]
    settings = [data.format, data.task, data.classes, data.palette, str(data.root)]
    settings += [f'{s.mask_values} {getattr(s.read_mask, "keywords", s.read_mask is None)}' for s in sources]
    state = fingerprint(sources, str(settings))
    counts = _known(folder / STATE, state, files.values())
    if counts is None:
        (folder / STATE).unlink(missing_ok=True)
        write = {'segmentation': _write_masks, 'classification': _write_labels}.get(data.task, _write_coco)
        counts = {name: dict(write(data, split, files[name])) for name, split in data.splits.items()}
        write_atomic(folder / STATE, json.dumps({'state': state, 'counts': counts}))
    shown = {name: {label: found.get(label, 0) for label in data.classes} for name, found in counts.items()}
    splits = {n: replace(split, annotation=files[n], counts=shown[n]) for n, split in data.splits.items()}
    return replace(data, splits=splits)


def _known(path: Path, state: str, files: Iterable[Path]) -> dict[str, dict[str, int]] | None:
    """Return the counts in files that were written before; None if they are not of this state."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding='utf-8'))
        if content['state'] == state and all(file.is_file() for file in files):
            return dict(content['counts'])
    return None


def _name(data: OwnData, path: str) -> str:
    return os.path.relpath(path, data.root).replace(os.sep, '/')


def parsed(split: Split) -> Iterator[tuple[Sample, Size, list[Annotation]]]:
    """Yield each sample of a split with its size and the annotations of its classes.

    Raises:
        UserError: Annotations that cannot be read; images that cannot be read, where nothing else states their size.
    """
    faults = [finding for finding in split.findings if finding.kind in ERRORS]
    results = in_threads(split.parse, split.samples, f'reading {split.part}')
    for sample, (size, objects, findings) in zip(split.samples, results, strict=True):
        faults += [finding for finding in findings if finding.kind in ERRORS]
        wrong = [one for one in objects if one.box and not all(map(math.isfinite, one.box))]
        faults += [Finding('box that is not finite', one.where) for one in wrong]
        if size is None and image_size(sample.image) is None:
            faults.append(Finding('unreadable image', sample.image))
        elif not faults:
            size = size or image_size(sample.image) or (0, 0)
            yield sample, size, [one for one in objects if one.label in split.classes]
    if faults:
        shown = join_some((f'{fault.kind}: {fault.where} {fault.what}' for fault in faults), limit=5, sep='\n  ')
        raise UserError(f'{split.source}: errors, all of which mmres2net check-data lists\n  {shown}')


def coco_dict(data: OwnData, split: OwnSplit) -> dict[str, Any]:
    """Return a split as the content of a COCO file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    number = {name: i for i, name in enumerate(data.classes, 1)}
    for sample, (width, height), objects in parsed(split.source):
        name = _name(data, sample.image)
        images.append({'id': len(images) + 1, 'file_name': name, 'width': width, 'height': height})
        for one in objects:
            x1, y1, x2, y2 = one.box or (0, 0, 0, 0)
            entry = {
                'id': len(annotations) + 1,
                'image_id': len(images),
                'category_id': number[str(one.label)],
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'area': (x2 - x1) * (y2 - y1) if one.area is None else one.area,
                'iscrowd': int(one.crowd or one.ignored),
            }
            entry |= {'segmentation': one.segmentation} if one.segmentation else {}
            annotations.append(entry | ({'ignore': 1} if one.dropped == IGNORE else {}))
    categories = [{'id': i, 'name': name, 'supercategory': ''} for name, i in number.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _write_coco(data: OwnData, split: OwnSplit, path: Path) -> Mapping[str, int]:
    write_atomic(path, json.dumps(coco_dict(data, split)))
    return split.counts


def _write_labels(data: OwnData, split: OwnSplit, path: Path) -> Mapping[str, int]:
    number = {name: i for i, name in enumerate(data.classes)}
    lines = [f'./{_name(data, sample.image)} {number[sample.raw]}' for sample in split.source.samples]
    write_atomic(path, ''.join(f'{line}\n' for line in lines))
    return split.counts


def _write_masks(data: OwnData, split: OwnSplit, path: Path) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    lines = []
    convert = partial(_convert, data, split.source, path.parent / 'masks')
    samples = split.source.samples
    for sample, (mask, found) in zip(samples, in_threads(convert, samples, f'reading {split.name}'), strict=True):
        lines.append(f'{_name(data, sample.image)}\t{mask}')
        counts.update({split.source.mask_values.get(value, ''): number for value, number in found.items()})
    write_atomic(path, ''.join(f'{line}\n' for line in lines))
    return counts


def _convert(data: OwnData, split: Split, folder: Path, sample: Sample) -> tuple[str, dict[int, int]]:
    """Return the mask that training reads and its pixels by label; a mask of another kind is written anew."""
    name = _name(data, sample.mask)
    try:
        labels = (split.read_mask or read_labels)(sample.mask)
        values, numbers = np.unique(labels, return_counts=True)
        strange = sorted(set(values.tolist()) - set(split.mask_values))
        if strange:
            raise UserError(
                f'{sample.mask}: no class has the value {join_some(strange)}; there are {len(data.classes)}'
            )
        if split.read_mask is not None or not holds_labels(sample.mask):
            target = folder / f'{name}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target, sync=False) as draft:
                Image.fromarray(labels).save(draft, 'PNG')
            name = str(target)
    except UserError:
        raise
    except Exception as error:  # damaged files raise many kinds of error
        raise UserError(f'{sample.mask}: the mask cannot be read ({error})') from error
    return name, dict(zip(values.tolist(), numbers.tolist(), strict=True))
