"""``mmres2net convert-data``: boxes and masks of objects in another format."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from mmres2net.data.formats.base import Annotation, Size, is_polygon, polygon_numbers
from mmres2net.data.own.dataset import OwnData, OwnSplit, recognize
from mmres2net.data.own.standard import coco_dict, parsed
from mmres2net.errors import UserError
from mmres2net.files import writable_dir
from mmres2net.flags import flags_of_convert_data

Losses = Counter[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the data that the flags in ``argv`` name, and print what is lost.

    Raises:
        UserError: A mistake in the flags, or data that are not recognized or cannot be read.
    """
    args = flags_of_convert_data().parse_args(argv)
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
    losses: Losses = Counter()
    try:
        names = _file_names(data)
        for split in data.splits.values():
            WRITERS[args.to](data, split, draft, names, losses)
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
    print(''.join(f'{count:,} {what}\n' for what, count in losses.items() if count) + f'written: {out}{os.sep}')
    return 0


def _file_names(data: OwnData) -> dict[str, str]:
    """Return a file name for each image, with a stem that no other has."""
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


def _write_coco(data: OwnData, split: OwnSplit, out: Path, names: dict[str, str], losses: Losses) -> None:
    content = coco_dict(data, split)
    for entry, sample in zip(content['images'], split.source.samples, strict=True):
        entry['file_name'] = names[sample.image]
    (out / 'annotations').mkdir(parents=True, exist_ok=True)
    (out / f'annotations/instances_{split.name}.json').write_text(json.dumps(content))


def _write_voc(data: OwnData, split: OwnSplit, out: Path, names: dict[str, str], losses: Losses) -> None:
    lists = out / 'ImageSets/Main'
    for folder in (lists, out / 'Annotations'):
        folder.mkdir(parents=True, exist_ok=True)
    stems = []
    for sample, size, objects in parsed(split.source):
        name = names[sample.image]
        stems.append(Path(name).stem)
        losses['masks of objects are lost'] += sum(bool(one.segmentation) for one in objects)
        tree = ElementTree.ElementTree(_voc_xml(name, size, objects))
        ElementTree.indent(tree)
        tree.write(out / f'Annotations/{stems[-1]}.xml', encoding='utf-8')
    (lists / f'{split.name}.txt').write_text(''.join(f'{stem}\n' for stem in stems), encoding='utf-8')


def _voc_xml(name: str, size: Size, objects: Sequence[Annotation]) -> ElementTree.Element:
    root = ElementTree.Element('annotation')
    ElementTree.SubElement(root, 'filename').text = name
    sides = ElementTree.SubElement(root, 'size')
    for key, value in (('width', size[0]), ('height', size[1]), ('depth', 3)):
        ElementTree.SubElement(sides, key).text = str(value)
    for one in objects:
        x1, y1, x2, y2 = map(round, one.box or (0, 0, 0, 0))
        node = ElementTree.SubElement(root, 'object')
        difficult = int(one.crowd or one.ignored)
        for key, text in (('name', one.label), ('truncated', 0), ('difficult', difficult)):
            ElementTree.SubElement(node, key).text = str(text)
        box = ElementTree.SubElement(node, 'bndbox')  # from 1 on, to the last pixel
        for key, value in (('xmin', x1 + 1), ('ymin', y1 + 1), ('xmax', max(x2, x1 + 1)), ('ymax', max(y2, y1 + 1))):
            ElementTree.SubElement(box, key).text = str(value)
    return root


def _write_yolo(data: OwnData, split: OwnSplit, out: Path, names: dict[str, str], losses: Losses) -> None:
    folder = out / 'labels' / split.name
    folder.mkdir(parents=True, exist_ok=True)
    number = {name: i for i, name in enumerate(data.classes)}
    for sample, size, objects in parsed(split.source):
        lines = []
        for one in objects:
            if one.crowd or one.ignored:
                losses['crowds and difficult objects are left out'] += 1
                continue
            shares = _yolo_shares(one, size, split.source.needs_masks, losses)
            lines.append(' '.join([str(number[str(one.label)]), *(f'{share:.6f}' for share in shares)]))
        text = ''.join(f'{line}\n' for line in lines)
        (folder / f'{Path(names[sample.image]).stem}.txt').write_text(text)


def _yolo_shares(one: Annotation, size: Size, polygons: bool, losses: Losses) -> list[float]:
    """Return polygon or box of an object in shares of the image's size, cut at its edges."""
    if one.segmentation and polygons and isinstance(one.segmentation, list):
        parts = [numbers for part in one.segmentation if (numbers := polygon_numbers(part)) and is_polygon(numbers)]
        losses['objects of several polygons become one, whose parts are joined'] += len(parts) > 1
        if parts:
            return [min(max(v / size[i % 2], 0), 1) for i, v in enumerate(v for part in parts for v in part)]
    losses['masks of objects are lost'] += bool(one.segmentation)
    box = one.box or (0, 0, 0, 0)
    x1, y1, x2, y2 = (min(max(v / size[i % 2], 0), 1) for i, v in enumerate(box))
    losses['boxes are cut at the edge of the image'] += not all(0 <= v <= size[i % 2] for i, v in enumerate(box))
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


WRITERS = {'coco': _write_coco, 'voc': _write_voc, 'yolo': _write_yolo}
IMAGES = {'coco': '{}', 'voc': 'JPEGImages', 'yolo': 'images/{}'}
