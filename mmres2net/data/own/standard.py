"""Own data in the one form that training reads, whatever their layout."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmres2net.data.check.before import fingerprint
from mmres2net.data.check.report import ERRORS
from mmres2net.data.formats.base import Annotation, Finding, Sample, Size, Split
from mmres2net.data.formats.coco import IGNORE
from mmres2net.data.own.dataset import OwnData, OwnSplit
from mmres2net.data.own.images import holds_labels, read_labels
from mmres2net.data.own.splits import in_threads
from mmres2net.errors import UserError
from mmres2net.files import atomic_path, writable_dir, write_atomic
from mmres2net.text import join_some

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
    write: Callable[..., tuple[str, Mapping[str, int]]]
    write = {'segmentation': _mask_lines, 'classification': _label_lines}.get(data.task, _coco_text)
    suffix = '.json' if write is _coco_text else '.txt'
    files = {n: folder / f'{split.source.part.split(",")[0]}{suffix}' for n, split in data.splits.items()}
    sources = [split.source for split in data.splits.values()]
    settings = [data.format, data.task, data.classes, data.palette, str(data.root)]
    settings += [f'{s.mask_values} {getattr(s.read_mask, "keywords", None)}' for s in sources]
    state = fingerprint(sources, str(settings))
    counts: dict[str, Mapping[str, int]] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / STATE).read_text(encoding='utf-8'))
        counts = dict(content['counts']) if content['state'] == state and all(map(Path.is_file, files.values())) else {}
    if not counts:
        (folder / STATE).unlink(missing_ok=True)
        for name, split in data.splits.items():
            text, counts[name] = write(data, split, folder)
            write_atomic(files[name], text)
        write_atomic(folder / STATE, json.dumps({'state': state, 'counts': counts}))
    shown = {name: {label: found.get(label, 0) for label in data.classes} for name, found in counts.items()}
    splits = {n: replace(split, annotation=files[n], counts=shown[n]) for n, split in data.splits.items()}
    return replace(data, splits=splits)


def _name(data: OwnData, path: str) -> str:
    return os.path.relpath(path, data.root).replace(os.sep, '/')


def parsed(split: Split) -> list[tuple[Sample, Size, list[Annotation]]]:
    """Return each sample of a split with its size and the annotations of its classes.

    Raises:
        UserError: Annotations that cannot be read; images that cannot be read, where nothing else states their size.
    """
    faults, result = list(split.findings), []
    for sample in split.samples:
        size, objects, findings = sample.parse()
        wrong = [one for one in objects if one.box and not all(map(math.isfinite, one.box))]
        faults += [*findings, *(Finding('box that is not finite', one.where) for one in wrong)]
        faults += [] if size else [Finding('unreadable image', sample.image)]
        result.append((sample, size or (0, 0), [one for one in objects if one.label in split.classes]))
    if faults := [fault for fault in faults if fault.kind in ERRORS]:
        shown = join_some((f'{fault.kind}: {fault.where} {fault.what}' for fault in faults), limit=5, sep='\n  ')
        raise UserError(f'{split.source}: errors, all of which mmres2net check-data lists\n  {shown}')
    return result


def coco_dict(data: OwnData, split: OwnSplit, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a split as the content of a COCO file; ``names`` are those of the images by path."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    number = {name: i for i, name in enumerate(data.classes, 1)}
    for sample, (width, height), objects in parsed(split.source):
        images.append({'id': len(images) + 1, 'file_name': names[sample.image], 'width': width, 'height': height})
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


def _coco_text(data: OwnData, split: OwnSplit, _: Path) -> tuple[str, Mapping[str, int]]:
    names = {sample.image: _name(data, sample.image) for sample in split.source.samples}
    return json.dumps(coco_dict(data, split, names)), split.counts


def _label_lines(data: OwnData, split: OwnSplit, _: Path) -> tuple[str, Mapping[str, int]]:
    number = {name: i for i, name in enumerate(data.classes)}
    labels = [(sample.image, str(one.label)) for sample in split.source.samples for one in sample.parse()[1]]
    return ''.join(f'./{_name(data, image)} {number[label]}\n' for image, label in labels), split.counts


def _mask_lines(data: OwnData, split: OwnSplit, folder: Path) -> tuple[str, Mapping[str, int]]:
    counts: Counter[str] = Counter()
    lines = []
    convert = partial(_convert, data, split.source, folder / 'masks')
    samples = split.source.samples
    for sample, (mask, found) in zip(samples, in_threads(convert, samples, f'reading {split.name}'), strict=True):
        lines.append(f'{_name(data, sample.image)}\t{mask}\n')
        counts.update({split.source.mask_values.get(value, ''): number for value, number in found.items()})
    return ''.join(lines), counts


def _convert(data: OwnData, split: Split, folder: Path, sample: Sample) -> tuple[str, dict[int, int]]:
    """Return the mask that training reads and its pixels by label; a mask of another kind is written anew."""
    name = _name(data, sample.mask)
    try:
        labels = (split.read_mask or read_labels)(sample.mask)
        values, numbers = np.unique(labels, return_counts=True)
        if strange := sorted(set(values.tolist()) - set(split.mask_values)):
            known = f'there are {len(data.classes)}'
            raise UserError(f'{sample.mask}: no class has the value {join_some(strange)}; {known}')
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
