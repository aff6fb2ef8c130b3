"""Each layout of the embedded data set agrees with the scene as drawn, to the pixel."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from mmres2net.data import shapes_layout
from mmres2net.data.shapes import CLASSES, verify_shapes
from mmres2net.data.shapes_scene import Instance, Scene


def _annotated(scenes: dict[str, Scene], coco: dict[str, COCO]) -> list[tuple[Instance, dict, COCO]]:
    pairs = []
    for name, scene in scenes.items():
        api = coco['val' if int(name) > shapes_layout.VAL_STEM else 'train']
        entries = api.loadAnns(api.getAnnIds(imgIds=int(name)))
        assert len(entries) == len(scene.instances)
        pairs += [(instance, entry, api) for instance, entry in zip(scene.instances, entries, strict=True)]
    return pairs


def _read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_coco_annotations_are_the_drawn_instances(scenes: dict[str, Scene], coco: dict[str, COCO]) -> None:
    pairs = _annotated(scenes, coco)
    for instance, entry, api in pairs:
        assert isinstance(entry['segmentation'], dict if instance.crowd else list)
        assert np.array_equal(api.annToMask(entry), instance.mask)
        ys, xs = np.nonzero(instance.mask)
        assert entry['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert entry['area'] == instance.mask.sum()
        assert entry['category_id'] == instance.label + 1
        assert entry['iscrowd'] == instance.crowd
    assert sum(CLASSES[instance.label] == 'ring' for instance, *_ in pairs) >= 20  # masks with holes took part


def test_counts_are_those_of_the_annotations_and_sizes_are_spread(root: Path, coco: dict[str, COCO]) -> None:
    for split, count in verify_shapes(root)['counts'].items():
        single = [entry for entry in coco[split].dataset['annotations'] if not entry['iscrowd']]
        bands = np.digitize([entry['area'] for entry in single], [32**2, 96**2])
        assert list(count['sizes'].values()) == np.bincount(bands, minlength=3).tolist()
        labels = [entry['category_id'] - 1 for entry in single]
        assert count['classes'] == dict(zip(CLASSES, np.bincount(labels).tolist(), strict=True))
        assert count['objects'] == len(single)
        assert count['images'] == len(coco[split].dataset['images'])
        assert count['crowds'] == len(coco[split].dataset['annotations']) - len(single)
    sizes = verify_shapes(root)['counts']['train']['sizes']
    assert min(sizes['small'], sizes['medium']) > 0.35 * sum(sizes.values())
    assert sizes['large'] > 0.01 * sum(sizes.values())


AWKWARD = {
    'rectangle': ['##', '##'],
    'corner': ['#.', '.#'],
    'hole': ['###', '#.#', '###'],
    'hole at a corner, 1': ['###', '#.#', '##.'],
    'hole at a corner, 2': ['##.', '#.#', '###'],
    'hole at a corner, 3': ['.##', '#.#', '###'],
    'ring in a ring': ['#######', '#.....#', '#.###.#', '#.#.#.#', '#.###.#', '#.....#', '#######'],
    'two holes at corners': ['###.', '#.##', '####', '.###'],
    'chessboard': ['#.#', '.#.', '#.#'],
    'two parts with a hole each': ['###.###', '#.#.#.#', '###.###'],
}


def test_polygons_decode_to_the_mask() -> None:
    """Of awkward and of random masks; no point follows itself, which pycocotools would divide by zero for."""
    rng = np.random.default_rng(0)
    awkward = [np.array([[cell == '#' for cell in row] for row in rows]) for rows in AWKWARD.values()]
    masks = [np.pad(mask, ((1, 2), (0, 1))) for mask in awkward]
    masks += [rng.random((9, 13)) < density for density in np.linspace(0.05, 0.95, 60)]
    for mask in masks:
        polygons = shapes_layout.polygons(mask)
        decoded = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(polygons, *mask.shape)))
        assert np.array_equal(decoded, mask)
        for polygon in polygons:
            points = list(zip(polygon[::2], polygon[1::2], strict=True))
            assert all(map(tuple.__ne__, points, points[1:] + points[:1]))
        runs = mask_utils.frPyObjects(shapes_layout.uncompressed_rle(mask), *mask.shape)
        assert np.array_equal(mask_utils.decode(runs), mask)
    assert shapes_layout.polygons(masks[0]) == [[0, 1, 2, 1, 2, 3, 0, 3]]


def test_voc_boxes_count_from_one_inclusive(root: Path, scenes: dict[str, Scene], coco: dict[str, COCO]) -> None:
    entries = {id(instance): entry for instance, entry, _ in _annotated(scenes, coco)}
    flags = {'difficult': 0, 'truncated': 0}
    for name, scene in scenes.items():
        tree = ElementTree.parse(root / 'VOCdevkit/VOC2007/Annotations' / f'{name}.xml').getroot()
        assert [int(tree.findtext(f'size/{key}')) for key in ('height', 'width', 'depth')] == list(scene.image.shape)
        for node, instance in zip(tree.findall('object'), scene.instances, strict=True):
            x, y, width, height = entries[id(instance)]['bbox']
            box = [int(node.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
            assert box == [x + 1, y + 1, x + width, y + height]
            assert node.findtext('name') == CLASSES[instance.label]
            assert int(node.findtext('difficult')) == (instance.crowd or (width < 12 and height < 12))
            assert int(node.findtext('truncated')) == (instance.area < instance.full_area)
            for key in flags:
                flags[key] += int(node.findtext(key))
    assert flags['difficult'] >= 5
    assert flags['truncated'] >= 20


def test_semantic_mask_is_the_class_of_the_visible_pixel(root: Path, scenes: dict[str, Scene]) -> None:
    for name, scene in scenes.items():
        stored = Image.open(root / 'VOCdevkit/VOC2012/SegmentationClass' / f'{name}.png')
        assert stored.mode == 'P'
        assert stored.getpalette()[:6] + stored.getpalette()[-3:] == [0, 0, 0, 128, 0, 0, 224, 224, 192]
        labels = np.array(stored)
        expected = np.zeros(labels.shape, dtype=np.uint8)
        for instance in scene.instances:
            expected[instance.mask] = instance.label + 1
        assert np.array_equal(labels[labels != 255], expected[labels != 255])
        assert set(np.unique(labels)) <= {*range(len(CLASSES) + 1), 255}


def test_void_is_one_pixel_wide_around_objects() -> None:
    masks = np.zeros((2, 7, 9), dtype=bool)
    masks[0, 2:5, 1:5] = True
    masks[1, 3:6, 5:7] = True
    instances = tuple(Instance(label, mask, int(mask.sum()), False) for label, mask in zip((0, 4), masks, strict=True))
    labels = shapes_layout.semantic_mask(Scene(np.zeros((7, 9, 3), np.uint8), instances))
    drawn = [''.join({0: '.', 1: 'a', 5: 'e', 255: '+'}[value] for value in row) for row in labels.tolist()]
    assert drawn == [
        '.........',
        '.++++....',
        '+aaaa++..',
        '+aaa+ee+.',
        '+aaa+ee+.',
        '.++++ee+.',
        '.....++..',
    ]


def test_split_lists(root: Path) -> None:
    train, test = [f'{i:06d}' for i in range(1, 61)], [f'{i:06d}' for i in range(100_001, 100_015)]
    main, segmentation = root / 'VOCdevkit/VOC2007/ImageSets/Main', root / 'VOCdevkit/VOC2012/ImageSets/Segmentation'
    found = {path: path.read_text().split() for path in root.rglob('*.txt')}
    assert sorted(found[main / 'train.txt'] + found.pop(main / 'val.txt')) == train
    assert len(found.pop(main / 'train.txt')) == 48
    assert found == {
        main / 'trainval.txt': train, main / 'test.txt': test, segmentation / 'train.txt': train,
        segmentation / 'val.txt': test, segmentation / 'trainval.txt': train + test,
        root / 'saliency/train.txt': [name for name in train if name != '000050'], root / 'saliency/test.txt': test,
    }  # fmt: skip


def test_saliency_mask_is_the_largest_single_object(root: Path, scenes: dict[str, Scene]) -> None:
    masks = {path.stem for path in (root / 'saliency/masks').iterdir()}
    assert masks == {path.stem for path in (root / 'saliency/images').iterdir()} == scenes.keys() - {'000050'}
    for name in sorted(masks):
        salient = _read(root / 'saliency/masks' / f'{name}.png')
        assert set(np.unique(salient)) <= {0, 255}
        single = [instance for instance in scenes[name].instances if not instance.crowd]
        assert (salient > 0).sum() == max(instance.mask.sum() for instance in single)
        assert any(np.array_equal(salient > 0, instance.mask) for instance in single)
