"""Sets of images laid out as people have them: recognized, counted and written as they really are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.data.own.dataset import OwnData, recognize, write_standard
from mmres2net.data.shapes_layout import voc_palette
from tests.data.own import relaid
from tests.data.own.relaid import Photo, counts
from tests.support.realdata import data_root

SPLITS = {'train': ['train'], 'val': ['val']}


def sources(shapes: Path, name: str) -> list[Photo]:
    if name == 'shapes':
        return relaid.from_coco(shapes, 12)
    if name == 'coco_mini':
        return relaid.from_coco(data_root(name), 25)
    return relaid.from_voc(data_root(name) / 'VOCdevkit/VOC2007', 25)


def at(text: str) -> relaid.Place:
    """A path with the names of the split and of the file."""
    return lambda photo: text.format(split=photo.split, stem=photo.path.stem, part=PARTS[photo.split])


PARTS = {'train': 'Training', 'val': 'valid'}


def data_yaml(root: Path, photos: Sequence[Photo], names: Callable[[list[str]], object], **places: str) -> Path:
    content = {'path': '/content/datasets/x', 'names': names(relaid.classes_of(photos)), **places}
    (root / 'data.yaml').write_text(json.dumps(content))
    return root


def yolo_yaml(
    root: Path, photos: Sequence[Photo], names: Callable[[list[str]], object] = list, **options: bool
) -> Path:
    relaid.yolo(root, photos, at('{part}/images/{stem}.jpg'), at('{part}/labels/{stem}.txt'), **options)
    return data_yaml(root, photos, names, train='../Training/images', val='../valid/images', test='../test/images')


def yolo_names(root: Path, photos: Sequence[Photo], text: str) -> Path:
    relaid.yolo(root, photos, at('images/{split}/{stem}.jpg'), at('labels/{split}/{stem}.txt'))
    if text:
        (root / text).write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(relaid.classes_of(photos)).encode())
    return root


def one_json(root: Path, photos: Sequence[Photo]) -> Path:
    relaid.coco(root, photos, at('a b/ä/{stem}.jpg'), {'json/all.json': ['train', 'val']}, at('C:\\x\\{stem}.jpg'))
    return root / 'json/all.json'


Lay = Callable[[Path, Sequence[Photo]], Path]


def laid(writer: Callable[..., Path], *places: object, **options: object) -> Lay:
    """Return what writes photos at places, which are texts as of `at`, or whatever the writer takes."""
    found = [at(place) if isinstance(place, str) else place for place in places]
    return lambda root, photos: writer(root, photos, *found, **options)


FILES = {f'annotations/instances_{split}2017.json': [split] for split in SPLITS}
ROBOFLOW = {f'{PARTS[split]}/_annotations.coco.json': [split] for split in SPLITS}
VOC07 = 'VOC2007/JPEGImages/{stem}.jpg', 'VOC2007/Annotations/{stem}.xml'
# Whether splits are told, and by how many pixels a box may differ.
LAYOUTS: dict[str, tuple[Lay, bool, float]] = {
    'COCO': (laid(relaid.coco, '{split}2017/{stem}.jpg', FILES, '{stem}.jpg'), True, 1e-6),
    'COCO of Roboflow': (laid(relaid.coco, '{part}/{stem}.jpg', ROBOFLOW, '{stem}.jpg'), True, 1e-6),
    'one COCO file': (one_json, False, 1e-6),
    'VOC with lists': (laid(relaid.voc, *VOC07, lists='VOC2007/ImageSets/Layout'), True, 1e-3),
    'VOC in other folders': (laid(relaid.voc, 'pics/{split}/{stem}.JPEG', 'boxes/{split}/{stem}.xml'), True, 1e-3),
    'XML beside images': (laid(relaid.voc, '{stem}.bmp', '{stem}.xml'), False, 1e-3),
    'YOLO with data.yaml': (yolo_yaml, True, 1e-2),
    'YOLO with numbered names': (
        partial(yolo_yaml, names=lambda names: {str(i): name for i, name in enumerate(names)}), True, 1e-2,
    ),
    'YOLO with classes.txt': (partial(yolo_names, text='classes.txt'), True, 1e-2),
    'YOLO without names': (partial(yolo_names, text=''), True, 1e-2),
    'YOLO beside images': (laid(relaid.yolo, '{stem}.jpg', '{stem}.txt'), False, 1e-2),
}  # fmt: skip


def standard_boxes(data: OwnData, split: str) -> dict[str, list[tuple[str, list[float]]]]:
    """Return (class, box) of each image in the standard file, as plain JSON says."""
    content = json.loads(data.splits[split].annotation.read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    assert list(names) == list(range(1, len(names) + 1))
    images = {image['id']: Path(image['file_name']).stem for image in content['images']}
    found: dict[str, list[tuple[str, list[float]]]] = {stem: [] for stem in images.values()}
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        found[images[entry['image_id']]].append((names[entry['category_id']], [x, y, x + w, y + h]))
    assert all((data.root / image['file_name']).is_file() for image in content['images'])
    return found


@pytest.mark.parametrize('name', ['shapes', 'coco_mini', 'voc07_mini'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_boxes(layout: str, name: str, shapes: Path, tmp_path: Path) -> None:
    photos = sources(shapes, name)
    lay, told, tolerance = LAYOUTS[layout]
    data = write_standard(recognize(lay(tmp_path / 'set', photos)), tmp_path / 'standard')
    classes = relaid.classes_of(photos)
    assert len(data.classes) == len(data.palette) == len(classes)
    named = (
        dict(zip(data.classes, classes, strict=True))
        if layout in ('YOLO without names', 'YOLO beside images')
        else {n: n for n in classes}
    )
    if told:
        for split in SPLITS:
            assert {named[k]: v for k, v in data.splits[split].counts.items()} == {
                n: counts(photos, split)[n] for n in classes
            }
    total = sum((Counter(split.counts) for split in data.splits.values()), Counter())
    assert {named[k]: v for k, v in total.items()} == counts(photos, 'train', 'val')
    assert sum(split.images for split in data.splits.values()) == len(photos)
    found = {stem: boxes for split in data.splits for stem, boxes in standard_boxes(data, split).items()}
    for photo in photos:
        boxes = sorted((named[label], box) for label, box in found[photo.path.stem])
        truth = sorted((label, list(box)) for label, box, _ in photo.objects)
        assert [label for label, _ in boxes] == [label for label, _ in truth]
        for (_, box), (_, true) in zip(boxes, truth, strict=True):
            assert box == pytest.approx(true, abs=tolerance)


@pytest.mark.parametrize('name', ['shapes', 'coco_mini'])
def test_polygons_of_yolo_are_masks(name: str, shapes: Path, tmp_path: Path) -> None:
    photos = [photo for photo in sources(shapes, name) if all(len(masks) == 1 for *_, masks in photo.objects)]
    data = write_standard(recognize(yolo_yaml(tmp_path / 'set', photos, polygons=True)), tmp_path / 'standard')
    assert data.task == 'instances'
    truth = sorted(round(sum(map(sum, masks)), 2) for p in photos if p.split == 'train' for *_, masks in p.objects)
    content = json.loads(data.splits['train'].annotation.read_text())
    assert sorted(sum(entry['segmentation'][0]) for entry in content['annotations']) == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize('place', ['{part}/{label}/x/{stem}.jpg', 'images/{label}/{part} {stem}.jpg'])
def test_class_folders(place: str, shapes: Path, tmp_path: Path) -> None:
    photos = relaid.from_coco(shapes, 12)
    truth: Counter[str] = Counter()
    for i, photo in enumerate(photos):
        label = ('a cat', 'Hund ä')[i % 2]
        truth[label] += 1
        relaid.link(photo, tmp_path / 'set' / place.format(part=PARTS[photo.split], label=label, stem=photo.path.stem))
    data = write_standard(recognize(tmp_path / 'set', seed=3), tmp_path / 'standard')
    assert (data.task, data.classes) == ('classification', ('Hund ä', 'a cat'))
    lines = [line for split in data.splits.values() for line in split.annotation.read_text().splitlines()]
    found = Counter(data.classes[int(line.rpartition(' ')[2])] for line in lines)
    assert found == truth == sum((Counter(split.counts) for split in data.splits.values()), Counter())
    assert all((data.root / line.rpartition(' ')[0]).is_file() for line in lines)
    assert min(data.splits['val'].counts.values()) > 0


def palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(voc_palette())
    return image


def binary(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where((labels > 0) & (labels < 255), 255, 0).astype(np.uint8))


MASKS = {
    'indices': ('{split}/img/{stem}.jpg', '{split}/ann/{stem}.png', Image.fromarray),
    'palette': ('photos/{split}/{stem}.jpg', 'truth/{split}/{stem}.png', palette),
    'RGB in VOC colors': ('{split}/{stem}.jpg', '{split}/{stem}.png', lambda m: palette(m).convert('RGB')),
    '0 and 255': ('data/{stem}.jpg', 'data/{stem}_mask.png', binary),
    'one bit': ('a/{stem}.jpg', 'b/{stem}-seg.png', lambda labels: binary(labels).convert('1')),
}


def pixels(pairs: Sequence[tuple[Path, Path, str]]) -> Counter[int]:
    values = Counter()
    for _, mask, _ in pairs:
        values.update(np.asarray(Image.open(mask)).ravel().tolist())
    return values


@pytest.mark.parametrize('name', ['shapes', 'voc12_mini'])
@pytest.mark.parametrize('layout', MASKS)
def test_masks(layout: str, name: str, shapes: Path, tmp_path: Path) -> None:
    root = (shapes if name == 'shapes' else data_root(name)) / 'VOCdevkit/VOC2012'
    pairs = [
        (root / f'JPEGImages/{stem}.jpg', root / f'SegmentationClass/{stem}.png', split)
        for split in SPLITS
        for stem in (root / f'ImageSets/Segmentation/{split}.txt').read_text().split()[:12]
    ]
    values = pixels(pairs)
    top = max(value for value in values if value < 255)
    names = ['background', *(f'thing {i}' for i in range(1, top + 1))]
    image, mask, change = MASKS[layout]
    relaid.masks(tmp_path / 'set', pairs, image, mask, change)
    two = layout in ('0 and 255', 'one bit')
    (tmp_path / 'set/classes.txt').write_text('thing' if two else '\n'.join(names))
    data = write_standard(recognize(tmp_path / 'set'), tmp_path / 'standard')
    assert (data.format, data.task, len(data.classes)) == ('masks', 'segmentation', 2 if two else top + 1)
    total = sum((Counter(split.counts) for split in data.splits.values()), Counter())
    objects = sum(number for value, number in values.items() if 0 < value < 255)
    if two:
        assert total == {'background': values[0] + values[255], 'thing': objects}
    else:
        assert total == {names[value]: values[value] for value in range(top + 1) if values[value]}
    for split in data.splits.values():
        for line in split.annotation.read_text().splitlines():
            image, _, mask = line.partition('\t')
            labels = np.asarray(Image.open(data.root / mask))
            assert labels.shape == np.asarray(Image.open(data.root / image)).shape[:2]
            assert set(np.unique(labels)) <= {*range(len(data.classes)), 255}


def test_salient_objects(tmp_path: Path) -> None:
    root = data_root('ecssd_mini')
    data = write_standard(recognize(root), tmp_path)
    found = {name: (split.images, split.counts['foreground']) for name, split in data.splits.items()}
    truth = {}
    for name in ('train', 'test'):
        stems = (root / f'{name}.txt').read_text().split()
        masks = [np.asarray(Image.open(root / f'masks/{stem}.png').convert('L')) for stem in stems]
        truth[name] = len(stems), sum(int((mask >= 128).sum()) for mask in masks)
    assert found['test'] == truth['test']
    assert tuple(a + b for a, b in zip(found['train'], found['val'], strict=True)) == truth['train']
