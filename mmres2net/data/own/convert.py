"""``mmres2net convert-data``: boxes and masks of objects in another format."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import yaml

from mmres2net.data.formats.base import Annotation, Size, is_polygon, polygon_numbers
from mmres2net.data.own.dataset import OwnData, OwnSplit, recognize
from mmres2net.data.own.standard import coco_dict, parsed
from mmres2net.errors import UserError
from mmres2net.files import writable_dir
from mmres2net.flags import parse

IMAGES = {'coco': '{}', 'voc': 'JPEGImages', 'yolo': 'images/{}'}
VOC = """<annotation>
  <filename>{}</filename>
  <size><width>{}</width><height>{}</height><depth>3</depth></size>
{}</annotation>
"""
VOC_OBJECT = """  <object>
    <name>{}</name><truncated>0</truncated><difficult>{}</difficult>
    <bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
  </object>
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the data that the flags in ``argv`` name, and print what is lost.

    Raises:
        UserError: A mistake in the flags, or data that are not recognized or cannot be read.
    """
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
    losses: Counter[str] = Counter()
    try:
        names = _file_names(data)
        for split in data.splits.values():
            for file, text in _texts(data, split, names, args.to, losses).items():
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


def _texts(data: OwnData, split: OwnSplit, names: dict[str, str], to: str, losses: Counter[str]) -> dict[str, str]:
    """Return the annotation files of a split by path: COCO's, VOC's and the list of them, or YOLO's."""
    if to == 'coco':
        return {f'annotations/instances_{split.name}.json': json.dumps(coco_dict(data, split, names))}
    texts = {}
    for sample, size, objects in parsed(split.source):
        name = names[sample.image]
        if to == 'voc':
            losses['masks of objects are lost'] += sum(bool(one.segmentation) for one in objects)
            text = VOC.format(escape(name), *size, ''.join(map(_voc_object, objects)))
            texts[f'Annotations/{Path(name).stem}.xml'] = text
        else:
            lines = [_yolo_line(one, data.classes, size, split.source.needs_masks, losses) for one in objects]
            texts[f'labels/{split.name}/{Path(name).stem}.txt'] = ''.join(lines)
    listed = {f'ImageSets/Main/{split.name}.txt': ''.join(f'{Path(file).stem}\n' for file in texts)}
    return texts | (listed if to == 'voc' else {})


def _voc_object(one: Annotation) -> str:
    x1, y1, x2, y2 = map(round, one.box or (0, 0, 0, 0))
    sides = x1 + 1, y1 + 1, max(x2, x1 + 1), max(y2, y1 + 1)  # from 1 on, to the last pixel
    return VOC_OBJECT.format(escape(str(one.label)), int(one.crowd or one.ignored), *sides)


def _yolo_line(one: Annotation, classes: Sequence[str], size: Size, polygons: bool, losses: Counter[str]) -> str:
    """Return polygon or box of an object in shares of the image's size, cut at its edges; empty if it is left out."""
    if one.crowd or one.ignored:
        losses['crowds and difficult objects are left out'] += 1
        return ''
    parts = one.segmentation if polygons and isinstance(one.segmentation, list) else []
    parts = [numbers for part in parts if (numbers := polygon_numbers(part)) and is_polygon(numbers)]
    values = [value for part in parts for value in part] or one.box or (0, 0, 0, 0)
    shares = [min(max(value / size[i % 2], 0), 1) for i, value in enumerate(values)]
    if parts:
        losses['objects of several polygons become one, whose parts are joined'] += len(parts) > 1
    else:
        losses['masks of objects are lost'] += bool(one.segmentation)
        losses['boxes are cut at the edge of the image'] += not all(0 <= v <= size[i % 2] for i, v in enumerate(values))
        x1, y1, x2, y2 = shares
        shares = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    return ' '.join([str(classes.index(str(one.label))), *(f'{share:.6f}' for share in shares)]) + '\n'
