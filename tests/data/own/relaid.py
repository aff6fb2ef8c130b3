"""Annotated images laid out in any format; nothing here is read or written by the package."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.data.shapes import voc_palette

SPLITS = ('train', 'val')
PARTS = {'train': 'Training', 'val': 'valid'}


@dataclass
class Photo:
    """An image, its split, and its objects as (class, (x1, y1, x2, y2), polygons)."""

    path: Path
    split: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, ...], list[list[float]]]] = field(default_factory=list)

    def at(self, place: str) -> str:
        return place.format(split=self.split, stem=self.path.stem, part=PARTS[self.split])


def from_coco(root: Path, most: int = 12) -> list[Photo]:
    photos = []
    for split in SPLITS:
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


def classes_of(photos: Sequence[Photo]) -> list[str]:
    return sorted({label for photo in photos for label, *_ in photo.objects})


def counts(photos: Sequence[Photo], *splits: str) -> Counter[str]:
    return Counter(label for photo in photos if photo.split in splits for label, *_ in photo.objects)


def boxes_in(path: Path, folder: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """(class, (x1, y1, x2, y2)) of each image in a COCO file as plain JSON says; the images are below ``folder``."""
    content = json.loads(path.read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    assert list(names) == list(range(1, len(names) + 1))
    found = {}
    for image in content['images']:
        assert (folder / image['file_name']).is_file()
        entries = [e for e in content['annotations'] if e['image_id'] == image['id'] and not e['iscrowd']]
        boxes = [(names[e['category_id']], e['bbox']) for e in entries]
        found[Path(image['file_name']).stem] = sorted((name, [x, y, x + w, y + h]) for name, (x, y, w, h) in boxes)
    return found


def assert_close(found: list[tuple[str, list[float]]], truth: list[tuple[str, list[float]]], most: float) -> None:
    assert [label for label, _ in found] == [label for label, _ in truth]
    for (_, box), (_, true) in zip(found, truth, strict=True):
        assert box == pytest.approx(true, abs=most)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(photo: Photo, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(photo.path)
    return target


def coco(root: Path, photos: Sequence[Photo], image: str, files: dict[str, Sequence[str]], named: str) -> Path:
    """COCO files with the splits of each; ``image`` is where an image lies, ``named`` what the file calls it."""
    for photo in photos:
        link(photo, root / photo.at(image))
    classes = classes_of(photos)
    for name, splits in files.items():
        images, annotations = [], []
        for photo in [photo for photo in photos if photo.split in splits]:
            images.append(dict(id=len(images), file_name=photo.at(named), width=photo.size[0], height=photo.size[1]))
            for label, (x1, y1, x2, y2), polygons in photo.objects:
                entry = dict(id=len(annotations), image_id=len(images) - 1, category_id=classes.index(label))
                masks = dict(segmentation=polygons) if polygons else {}
                annotations.append(entry | dict(bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0) | masks)
        categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
        write(root / name, json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


def voc(root: Path, photos: Sequence[Photo], image: str, xml: str, lists: str = '') -> Path:
    for photo in photos:
        link(photo, root / photo.at(image))
        objects = ''.join(
            f'<object><name>{label}</name><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>'
            f'<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>'
            for label, (x1, y1, x2, y2), _ in photo.objects
        )
        size = '<size><width>0</width><height>0</height></size>'
        write(root / photo.at(xml), f'<annotation>{size}{objects}</annotation>')
    for split in SPLITS if lists else ():
        write(root / lists / f'{split}.txt', '\r\n'.join(photo.path.stem for photo in photos if photo.split == split))
    return root


def yolo(root: Path, photos: Sequence[Photo], image: str, text: str, *, polygons: bool = False) -> Path:
    """An image without objects gets no file."""
    classes = classes_of(photos)
    for photo in photos:
        link(photo, root / photo.at(image))
        lines = []
        for label, (x1, y1, x2, y2), masks in photo.objects:
            box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            values = [v for part in masks for v in part] if polygons else box
            shares = [v / photo.size[i % 2] for i, v in enumerate(values)]
            lines.append(' '.join(map(str, [classes.index(label), *shares])))
        if lines:
            write(root / photo.at(text), '\r\n'.join(lines))
    return root


def masks(root: Path, pairs: Sequence[tuple[Photo, Path]], image: str, mask: str, change: Callable) -> Path:
    """Images and masks; ``change`` makes a mask of labels."""
    for photo, labels in pairs:
        link(photo, root / photo.at(image))
        target = root / photo.at(mask)
        target.parent.mkdir(parents=True, exist_ok=True)
        change(np.asarray(Image.open(labels))).save(target)
    return root


def from_voc12(root: Path, most: int = 12) -> list[tuple[Photo, Path]]:
    root = root / 'VOCdevkit/VOC2012'
    return [
        (Photo(root / f'JPEGImages/{stem}.jpg', split, (0, 0)), root / f'SegmentationClass/{stem}.png')
        for split in SPLITS
        for stem in (root / f'ImageSets/Segmentation/{split}.txt').read_text().split()[:most]
    ]


def palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(voc_palette())
    return image


def binary(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where((labels > 0) & (labels < 255), 255, 0).astype(np.uint8))
