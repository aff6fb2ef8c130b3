"""Own data in the one form that training reads, whatever their layout; and ``mmres2net convert-data``."""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mmres2net.data.check.before import fingerprint
from mmres2net.data.check.job import ERRORS
from mmres2net.data.formats import base
from mmres2net.data.formats.base import Annotation, Finding, Sample, Size, Split, in_threads
from mmres2net.data.formats.objects import IGNORE
from mmres2net.data.own.dataset import OwnData, OwnSplit, recognize
from mmres2net.data.own.images import holds_labels, read_labels
from mmres2net.data.shapes import voc_xml
from mmres2net.errors import UserError
from mmres2net.files import atomic_path, writable_dir, write_atomic
from mmres2net.flags import parse
from mmres2net.text import join_some

STATE = 'standard.json'
IMAGES = {'coco': '{}', 'voc': 'JPEGImages', 'yolo': 'images/{}'}
LOST = {
    'coco': '',
    'voc': 'VOC holds boxes alone, in whole pixels: masks of objects are left out.\n',
    'yolo': 'YOLO holds no crowds and no difficult objects, and one polygon an object; boxes are cut at the edges.\n',
}


def write_standard(data: OwnData, folder: Path) -> OwnData:
    """Write ``data`` in the standard form into ``folder`` and return them with ``annotation`` pointing at these files.

    For detection and instances these are COCO files (difficult objects of VOC are crowds, so that they are neither
    trained on nor counted); for segmentation lists for :class:`PairedSegDataset`, with masks that are no class indices
    of one channel converted below ``folder/masks``; for classification lists as mmpretrain's ``CustomDataset`` reads
    them. Paths are relative to ``data.root``. Files are replaced atomically, and used again where neither data nor
    version have changed. A UserError lists annotations that cannot be converted.
    """
    folder = writable_dir(folder, 'folder of the data').resolve()
    suffix = '.txt' if data.task in ('segmentation', 'classification') else '.json'
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
            text, counts[name] = _text(data, split, folder)
            write_atomic(files[name], text)
        write_atomic(folder / STATE, json.dumps({'state': state, 'counts': counts}))
    shown = {name: {label: found.get(label, 0) for label in data.classes} for name, found in counts.items()}
    splits = {n: replace(split, annotation=files[n], counts=shown[n]) for n, split in data.splits.items()}
    return replace(data, splits=splits)


def _name(data: OwnData, path: str) -> str:
    return os.path.relpath(path, data.root).replace(os.sep, '/')


def parsed(split: Split) -> list[tuple[Sample, Size, list[Annotation]]]:
    """Return each sample with its size and the annotations of its classes; a UserError lists what cannot be read."""
    faults, result = list(split.findings), []
    for sample in split.samples:
        size, objects, findings = sample.parse()
        wrong = [one for one in objects if one.box and not all(map(math.isfinite, one.box))]
        faults += [*findings, *(Finding('box that is not finite', one.where) for one in wrong)]
        faults += [] if size else [Finding('unreadable image', sample.image)]
        result.append((sample, size or (0, 0), [one for one in objects if one.label in split.classes]))
    if faults := [fault for fault in faults if fault.kind in ERRORS]:
        shown = join_some((f'{fault.kind}: {fault.where}: {fault.what}' for fault in faults), limit=5, sep='\n  ')
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
            area = (x2 - x1) * (y2 - y1) if one.area is None else one.area
            entry = {
                'id': len(annotations) + 1, 'image_id': len(images), 'category_id': number[str(one.label)],
                'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': area, 'iscrowd': int(one.crowd or one.ignored),
            }  # fmt: skip
            entry |= {'segmentation': one.segmentation} if one.segmentation else {}
            annotations.append(entry | ({'ignore': 1} if one.dropped == IGNORE else {}))
    categories = [{'id': i, 'name': name, 'supercategory': ''} for name, i in number.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _text(data: OwnData, split: OwnSplit, folder: Path) -> tuple[str, Mapping[str, int]]:
    """Return the file of a split, and its annotations by class."""
    samples, counts = split.source.samples, Counter(split.counts)
    names = {sample.image: _name(data, sample.image) for sample in samples}
    if data.task == 'classification':
        number = {name: i for i, name in enumerate(data.classes)}
        labels = [(names[sample.image], number[str(one.label)]) for sample in samples for one in sample.parse()[1]]
        return ''.join(f'./{name} {label}\n' for name, label in labels), counts
    if data.task != 'segmentation':
        return json.dumps(coco_dict(data, split, names)), counts
    lines = []
    convert = partial(_convert, data, split.source, folder / 'masks')
    for sample, (mask, found) in zip(samples, in_threads(convert, samples, f'reading {split.name}'), strict=True):
        lines.append(f'{names[sample.image]}\t{mask}\n')
        counts.update({split.source.mask_values.get(value, ''): number for value, number in found.items()})
    return ''.join(lines), counts


def _convert(data: OwnData, split: Split, folder: Path, sample: Sample) -> tuple[str, dict[int, int]]:
    """Return the mask that training reads and its pixels by label; a mask of another kind is written anew."""
    name = _name(data, sample.mask)
    try:
        labels = (split.read_mask or read_labels)(sample.mask)
        values, numbers = np.unique(labels, return_counts=True)
        if strange := sorted(set(values.tolist()) - set(split.mask_values)):
            raise UserError(f'{sample.mask}: none of {len(data.classes)} classes has the value {join_some(strange)}')
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


# Other formats


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the data that the flags in ``argv`` name, and say what the format does not hold."""
    args = parse('convert-data', argv)
    data = recognize(args.path, task='detection')
    print(data.as_text())
    out = Path(args.out or f'{Path(args.path).resolve().stem}-{args.to}').expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'--out {out}: something is there; choose another folder')
    if out.resolve().is_relative_to(data.root.resolve()):
        raise UserError(f'--out {out} is in the folder of the data, {data.root}; choose a folder outside of it')
    writable_dir(out.absolute().parent, '--out')
    draft = out.with_name(f'.{out.name}.part')
    shutil.rmtree(draft, ignore_errors=True)
    try:
        names = _file_names(data)
        for split in data.splits.values():
            for file, text in _texts(data, split, names, args.to).items():
                (draft / file).parent.mkdir(parents=True, exist_ok=True)
                (draft / file).write_text(text, encoding='utf-8')
            _place_images(split, draft / IMAGES[args.to].format(split.name), names, copy=args.copy)
        if args.to == 'yolo':
            folders = {name: f'images/{name}' for name in data.splits}
            content = {**folders, 'nc': len(data.classes), 'names': dict(enumerate(data.classes))}
            (draft / 'data.yaml').write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f'{LOST[args.to]}written: {out}{os.sep}')
    return 0


def _file_names(data: OwnData) -> dict[str, str]:
    images = [sample.image for split in data.splits.values() for sample in split.source.samples]
    stems = Counter(Path(image).stem.lower() for image in dict.fromkeys(images))
    names = {}
    for image in images:
        path = Path(image)
        unique = os.path.relpath(image, data.root).replace(os.sep, '_').replace('.', '_') + path.suffix
        names[image] = path.name if stems[path.stem.lower()] == 1 else unique
    return names


def _place_images(split: OwnSplit, folder: Path, names: dict[str, str], *, copy: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in split.source.samples:
        target = folder / names[sample.image]
        if not os.path.isfile(sample.image):
            raise UserError(f'{sample.image} is not there; mmres2net check-data lists what is wrong')
        if copy:
            shutil.copy2(sample.image, target)
        elif not target.exists():
            target.symlink_to(os.path.abspath(sample.image))


def _texts(data: OwnData, split: OwnSplit, names: dict[str, str], to: str) -> dict[str, str]:
    if to == 'coco':
        return {f'annotations/instances_{split.name}.json': json.dumps(coco_dict(data, split, names))}
    texts = {}
    for sample, size, objects in parsed(split.source):
        name = names[sample.image]
        if to == 'voc':
            texts[f'Annotations/{Path(name).stem}.xml'] = voc_xml(name, size, map(_voc_object, objects), 'mmres2net')
        else:
            lines = [_yolo_line(one, data.classes, size, split.source.needs_masks) for one in objects]
            texts[f'labels/{split.name}/{Path(name).stem}.txt'] = ''.join(lines)
    listed = {f'ImageSets/Main/{split.name}.txt': ''.join(f'{Path(file).stem}\n' for file in texts)}
    return texts | (listed if to == 'voc' else {})


def _voc_object(one: Annotation) -> tuple[str, int, int, Sequence[int]]:
    x1, y1, x2, y2 = map(round, one.box or (0, 0, 0, 0))
    return str(one.label), 0, int(one.crowd or one.ignored), (x1 + 1, y1 + 1, max(x2, x1 + 1), max(y2, y1 + 1))


def _yolo_line(one: Annotation, classes: Sequence[str], size: Size, polygons: bool) -> str:
    """Return polygon or box of an object in shares of the image's size, cut at its edges; empty if it is left out."""
    if one.crowd or one.ignored:
        return ''
    parts = one.segmentation if polygons and isinstance(one.segmentation, list) else []
    parts = [numbers for part in parts if (numbers := base.polygon_numbers(part)) and base.is_polygon(numbers)]
    values = [value for part in parts for value in part] or one.box or (0, 0, 0, 0)
    shares = [min(max(value / size[i % 2], 0), 1) for i, value in enumerate(values)]
    if not parts:
        x1, y1, x2, y2 = shares
        shares = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    return ' '.join([str(classes.index(str(one.label))), *(f'{share:.6f}' for share in shares)]) + '\n'
