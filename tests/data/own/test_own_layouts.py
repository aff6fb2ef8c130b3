"""Sets of images laid out as people have them: recognized, counted and written as they really are."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.data.own.dataset import OwnData, recognize
from mmres2net.data.own.standard import write_standard
from tests.data.own import relaid
from tests.data.own.relaid import PARTS, SPLITS, Photo, binary, counts, palette
from tests.support.realdata import data_root


def standard(root: Path) -> OwnData:
    return write_standard(recognize(root), root.parent / 'standard')


def total(data: OwnData) -> Counter[str]:
    return sum((Counter(split.counts) for split in data.splits.values()), Counter())


def yolo_yaml(
    root: Path, photos: Sequence[Photo], names: Callable[[list[str]], object] = list, **options: bool
) -> Path:
    relaid.yolo(root, photos, '{part}/images/{stem}.jpg', '{part}/labels/{stem}.txt', **options)
    places = {part: f'../{PARTS.get(part, part)}/images' for part in ('train', 'val', 'test')}
    content = {'path': '/content/datasets/x', 'names': names(relaid.classes_of(photos)), **places}
    relaid.write(root / 'data.yaml', json.dumps(content))
    return root


def yolo_names(root: Path, photos: Sequence[Photo], text: str) -> Path:
    relaid.yolo(root, photos, 'images/{split}/{stem}.jpg', 'labels/{split}/{stem}.txt')
    if text:
        (root / text).write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(relaid.classes_of(photos)).encode())
    return root


def one_json(root: Path, photos: Sequence[Photo]) -> Path:
    relaid.coco(root, photos, 'a b/ä/{stem}.jpg', {'json/all.json': SPLITS}, 'C:\\x\\{stem}.jpg')
    return root / 'json/all.json'


def laid(writer: Callable[..., Path], *places: object) -> Callable[[Path, Sequence[Photo]], Path]:
    return lambda root, photos: writer(root, photos, *places)


FILES = {f'annotations/instances_{split}2017.json': [split] for split in SPLITS}
ROBOFLOW = {f'{PARTS[split]}/_annotations.coco.json': [split] for split in SPLITS}
VOC07 = 'VOC2007/JPEGImages/{stem}.jpg', 'VOC2007/Annotations/{stem}.xml', 'VOC2007/ImageSets/Layout'
# Whether splits are told, and by how many pixels a box may differ.
LAYOUTS: dict[str, tuple[Callable[[Path, Sequence[Photo]], Path], bool, float]] = {
    'COCO': (laid(relaid.coco, '{split}2017/{stem}.jpg', FILES, '{stem}.jpg'), True, 1e-6),
    'COCO of Roboflow': (laid(relaid.coco, '{part}/{stem}.jpg', ROBOFLOW, '{stem}.jpg'), True, 1e-6),
    'one COCO file': (one_json, False, 1e-6),
    'VOC with lists': (laid(relaid.voc, *VOC07), True, 1e-3),
    'VOC in other folders': (laid(relaid.voc, 'pics/{split}/{stem}.JPEG', 'boxes/{split}/{stem}.xml'), True, 1e-3),
    'XML beside images': (laid(relaid.voc, '{stem}.bmp', '{stem}.xml'), False, 1e-3),
    'YOLO with data.yaml': (yolo_yaml, True, 1e-2),
    'YOLO with numbered names': (partial(yolo_yaml, names=lambda names: dict(enumerate(names))), True, 1e-2),
    'YOLO with classes.txt': (partial(yolo_names, text='classes.txt'), True, 1e-2),
    'YOLO without names': (partial(yolo_names, text=''), True, 1e-2),
    'YOLO beside images': (laid(relaid.yolo, '{stem}.jpg', '{stem}.txt'), False, 1e-2),
}


@pytest.mark.parametrize('name', ['shapes', 'coco_mini'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_boxes(layout: str, name: str, shapes: Path, tmp_path: Path) -> None:
    photos = relaid.from_coco(shapes if name == 'shapes' else data_root(name), 25)
    lay, told, tolerance = LAYOUTS[layout]
    data = write_standard(recognize(lay(tmp_path / 'set', photos)), tmp_path / 'standard')
    classes = relaid.classes_of(photos)
    assert len(data.classes) == len(data.palette) == len(classes)
    named = dict(zip(data.classes if data.classes[0].isdecimal() else classes, classes, strict=True))
    for split in SPLITS if told else ():
        assert {named[k]: v for k, v in data.splits[split].counts.items() if v} == counts(photos, split)
    assert {named[k]: v for k, v in total(data).items()} == counts(photos, *SPLITS)
    assert sum(split.images for split in data.splits.values()) == len(photos)
    found: dict[str, list] = {}
    for split in data.splits.values():
        found |= relaid.boxes_in(split.annotation, data.root)
    for photo in photos:
        boxes = sorted((named[label], box) for label, box in found[photo.path.stem])
        relaid.assert_close(boxes, sorted((label, list(box)) for label, box, _ in photo.objects), tolerance)


@pytest.mark.parametrize('name', ['shapes', 'coco_mini'])
def test_polygons_of_yolo_are_masks(name: str, shapes: Path, tmp_path: Path) -> None:
    photos = relaid.from_coco(shapes if name == 'shapes' else data_root(name))
    photos = [photo for photo in photos if all(len(masks) == 1 for *_, masks in photo.objects)]
    data = standard(yolo_yaml(tmp_path / 'set', photos, polygons=True))
    assert data.task == 'instances'
    truth = sorted(round(sum(map(sum, masks)), 2) for p in photos if p.split == 'train' for *_, masks in p.objects)
    content = json.loads(data.splits['train'].annotation.read_text())
    assert sorted(sum(entry['segmentation'][0]) for entry in content['annotations']) == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize('place', ['{part}/LABEL/x/{stem}.jpg', 'images/LABEL/{part} {stem}.jpg'])
def test_class_folders(place: str, shapes: Path, tmp_path: Path) -> None:
    photos = relaid.from_coco(shapes)
    labels = [('a cat', 'Hund ä')[i % 2] for i in range(len(photos))]
    for photo, label in zip(photos, labels, strict=True):
        relaid.link(photo, tmp_path / 'set' / photo.at(place).replace('LABEL', label))
    data = standard(tmp_path / 'set')
    assert (data.task, data.classes) == ('classification', ('Hund ä', 'a cat'))
    lines = [line for split in data.splits.values() for line in split.annotation.read_text().splitlines()]
    assert Counter(data.classes[int(line.rpartition(' ')[2])] for line in lines) == total(data) == Counter(labels)
    assert all((data.root / line.rpartition(' ')[0]).is_file() for line in lines)
    assert min(data.splits['val'].counts.values()) > 0


MASKS = {
    'indices': ('{split}/img/{stem}.jpg', '{split}/ann/{stem}.png', Image.fromarray),
    'palette': ('photos/{split}/{stem}.jpg', 'truth/{split}/{stem}.png', palette),
    'RGB in VOC colors': ('{split}/{stem}.jpg', '{split}/{stem}.png', lambda m: palette(m).convert('RGB')),
    '0 and 255': ('data/{stem}.jpg', 'data/{stem}_mask.png', binary),
    'one bit': ('a/{stem}.jpg', 'b/{stem}-seg.png', lambda labels: binary(labels).convert('1')),
}


@pytest.mark.parametrize('name', ['shapes', 'voc12_mini'])
@pytest.mark.parametrize('layout', MASKS)
def test_masks(layout: str, name: str, shapes: Path, tmp_path: Path) -> None:
    pairs = relaid.from_voc12(shapes if name == 'shapes' else data_root(name))
    values = sum((Counter(np.asarray(Image.open(mask)).ravel().tolist()) for _, mask in pairs), Counter())
    top, two = max(value for value in values if value < 255), layout in ('0 and 255', 'one bit')
    names = ['background', *(f'thing {i}' for i in range(1, top + 1))]
    relaid.masks(tmp_path / 'set', pairs, *MASKS[layout])
    (tmp_path / 'set/classes.txt').write_text('thing' if two else '\n'.join(names))
    data = standard(tmp_path / 'set')
    assert (data.format, data.task, len(data.classes)) == ('masks', 'segmentation', 2 if two else top + 1)
    objects = sum(number for value, number in values.items() if 0 < value < 255)
    all_values = {names[value]: values[value] for value in range(top + 1) if values[value]}
    assert total(data) == ({'background': values[0] + values[255], 'thing': objects} if two else all_values)
    for split in data.splits.values():
        for line in split.annotation.read_text().splitlines():
            image, _, mask = line.partition('\t')
            labels = np.asarray(Image.open(data.root / mask))
            assert labels.shape == np.asarray(Image.open(data.root / image)).shape[:2]
            assert set(np.unique(labels)) <= {*range(len(data.classes)), 255}
