"""Annotated images laid out in any format; nothing here is read or written by the package."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass
class Photo:
    """An image, its split, and its objects as (class, (x1, y1, x2, y2), polygons)."""

    path: Path
    split: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, ...], list[list[float]]]] = field(default_factory=list)


def from_coco(root: Path, most: int) -> list[Photo]:
    photos = []
    for split in ('train', 'val'):
        content = json.loads((root / f'annotations/instances_{split}2017.json').read_text())
        names = {c['id']: c['name'] for c in content['categories']}
        for image in content['images'][:most]:
            photo = Photo(root / f'{split}2017' / image['file_name'], split, (image['width'], image['height']))
            for entry in content['annotations']:
                if entry['image_id'] == image['id'] and not entry['iscrowd']:
                    x, y, w, h = entry['bbox']
                    photo.objects.append((names[entry['category_id']], (x, y, x + w, y + h), entry['segmentation']))
            photos.append(photo)
    return photos


def from_voc(root: Path, most: int) -> list[Photo]:
    photos = []
    for split in ('train', 'val'):
        for name in (root / f'ImageSets/Main/{split}.txt').read_text().split()[:most]:
            tree = ElementTree.parse(root / f'Annotations/{name}.xml')
            size = int(tree.findtext('size/width')), int(tree.findtext('size/height'))
            photo = Photo(root / f'JPEGImages/{name}.jpg', split, size)
            for node in tree.iterfind('object'):
                x1, y1, x2, y2 = (float(node.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
                photo.objects.append((node.findtext('name'), (x1 - 1, y1 - 1, x2, y2), []))
            photos.append(photo)
    return photos


def classes_of(photos: Sequence[Photo]) -> list[str]:
    return sorted({label for photo in photos for label, *_ in photo.objects})


def counts(photos: Sequence[Photo], *splits: str) -> Counter[str]:
    return Counter(label for photo in photos if photo.split in splits for label, *_ in photo.objects)


def link(photo: Photo, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(photo.path)
    return target


Place = Callable[[Photo], str]


def coco(root: Path, photos: Sequence[Photo], image: Place, files: dict[str, Sequence[str]], named: Place) -> Path:
    """COCO files with the splits of each; ``image`` is where an image lies, ``named`` what the file calls it."""
    for photo in photos:
        link(photo, root / image(photo))
    classes = classes_of(photos)
    for name, splits in files.items():
        images, annotations = [], []
        for photo in [photo for photo in photos if photo.split in splits]:
            images.append(dict(id=len(images), file_name=named(photo), width=photo.size[0], height=photo.size[1]))
            for label, (x1, y1, x2, y2), polygons in photo.objects:
                entry = dict(id=len(annotations), image_id=len(images) - 1, category_id=classes.index(label))
                masks = dict(segmentation=polygons) if polygons else {}
                annotations.append(entry | dict(bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0) | masks)
        categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


def voc(root: Path, photos: Sequence[Photo], image: Place, xml: Place, lists: str = '') -> Path:
    for photo in photos:
        link(photo, root / image(photo))
        objects = ''.join(
            f'<object><name>{label}</name><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>'
            f'<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>'
            for label, (x1, y1, x2, y2), _ in photo.objects
        )
        path = root / xml(photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'<annotation><size><width>0</width><height>0</height></size>{objects}</annotation>')
        if lists:
            (root / lists).mkdir(parents=True, exist_ok=True)
            with (root / lists / f'{photo.split}.txt').open('a', newline='') as file:
                file.write(f'{photo.path.stem}\r\n')
    return root


def yolo(root: Path, photos: Sequence[Photo], image: Place, text: Place, *, polygons: bool = False) -> Path:
    """An image without objects gets no file."""
    classes = classes_of(photos)
    for photo in photos:
        link(photo, root / image(photo))
        lines = []
        for label, box, masks in photo.objects:
            x1, y1, x2, y2 = (v / photo.size[i % 2] for i, v in enumerate(box))
            shares = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            if polygons:
                shares = [v / photo.size[i % 2] for i, v in enumerate(v for part in masks for v in part)]
            lines.append(' '.join(map(str, [classes.index(label), *shares])))
        if lines:
            path = root / text(photo)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\r\n'.join(lines))
    return root


def masks(root: Path, pairs: Sequence[tuple[Path, Path, str]], image: str, mask: str, change: Callable) -> Path:
    """Images and masks (image, mask, split) at paths with {split} and {stem}; ``change`` makes a mask of labels."""
    for path, labels, split in pairs:
        link(Photo(path, split, (0, 0)), root / image.format(split=split, stem=path.stem))
        target = root / mask.format(split=split, stem=path.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        change(np.asarray(Image.open(labels))).save(target)
    return root
