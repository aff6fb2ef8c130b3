"""Mistakes in data that would fail late, or spoil a run without a word, fail at once and say where."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmres2net.data.check import check_classes, check_heads, check_images, check_paths
from mmres2net.errors import UserError


def coco(root: Path, names: list[str], *, classes: tuple[str, ...] | None = None, annotations: int = 1) -> Config:
    """Write a COCO file with categories ``names`` and return a config that reads it."""
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 8, 'height': 6}],
        'annotations': [
            {'id': i + 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'area': 16, 'iscrowd': 0}
            for i in range(annotations)
        ],
        'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(names)],
    }
    (root / 'train').mkdir(exist_ok=True)
    (root / 'ann.json').write_text(json.dumps(content))
    dataset = dict(type='CocoDataset', data_root=str(root), ann_file='ann.json', data_prefix=dict(img='train/'))
    if classes is not None:
        dataset['metainfo'] = dict(classes=classes)
    return Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=dataset)))


def voc(root: Path, *names: str) -> Config:
    """Write a VOC folder of one image with objects ``names`` and return a config that reads it."""
    for folder in ('ImageSets', 'Annotations', 'JPEGImages'):
        (root / 'VOC2007' / folder).mkdir(parents=True)
    (root / 'VOC2007/ImageSets/train.txt').write_text('000001\n')
    objects = ''.join(f'<object><name>{name}</name></object>' for name in names)
    (root / 'VOC2007/Annotations/000001.xml').write_text(f'<annotation>{objects}</annotation>')
    dataset = dict(
        type='VOCDataset',
        data_root=str(root),
        ann_file='VOC2007/ImageSets/train.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
    )
    return Config(dict(default_scope='mmdet', model={}, train_dataloader=dict(dataset=dataset)))


def test_missing_paths_are_all_named(tmp_path: Path) -> None:
    cfg = coco(tmp_path, ['cat'])
    check_paths(cfg, ['train'])
    (tmp_path / 'ann.json').unlink()
    (tmp_path / 'train').rmdir()
    with pytest.raises(UserError) as caught:
        check_paths(cfg, ['train'])
    assert str(tmp_path / 'ann.json') in str(caught.value)
    assert str(tmp_path / 'train') in str(caught.value)
    assert '--data DIR' in str(caught.value)


def test_matching_classes_pass_and_may_be_a_subset(tmp_path: Path) -> None:
    check_classes(coco(tmp_path, ['cat', 'dog'], classes=('cat', 'dog')), ['train'])
    check_classes(coco(tmp_path, ['cat', 'dog'], classes=('dog',)), ['train'])


def test_class_without_category(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'no category for 1 of the 2 classes in the config: mouse; it has cat, dog'):
        check_classes(coco(tmp_path, ['cat', 'dog'], classes=('cat', 'mouse')), ['train'])
    with pytest.raises(UserError, match='no category for 80 of the 80 classes'):
        check_classes(coco(tmp_path, ['disc']), ['train'])  # the host's own class names are used where none are given


def test_another_order_of_categories(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'another order.*file dog, cat; config cat, dog'):
        check_classes(coco(tmp_path, ['dog', 'cat'], classes=('cat', 'dog')), ['train'])


def test_empty_and_broken_annotation_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='empty split: 1 images, 0 annotations'):
        check_classes(coco(tmp_path, ['cat'], classes=('cat',), annotations=0), ['train'])
    cfg = coco(tmp_path, ['cat'], classes=('cat',))
    for content in ('{"images": [', '[1, 2]', '{}'):
        (tmp_path / 'ann.json').write_text(content)
        with pytest.raises(UserError, match='not a COCO annotation file'):
            check_classes(cfg, ['train'])


def test_voc_classes(tmp_path: Path) -> None:
    check_classes(voc(tmp_path / 'a', 'cat', 'dog'), ['train'])  # the other 18 classes are just not in this split
    with pytest.raises(UserError, match='it has disc'):
        check_classes(voc(tmp_path / 'b', 'disc'), ['train'])
    with pytest.raises(UserError, match='it has cat, airplane'):
        check_classes(voc(tmp_path / 'c', 'cat', 'airplane'), ['train'])
    subset = voc(tmp_path / 'd', 'cat', 'dog')
    subset.train_dataloader.dataset.metainfo = dict(classes=('cat',))
    check_classes(subset, ['train'])


def test_voc_lists_and_files(tmp_path: Path) -> None:
    cfg = voc(tmp_path, 'cat')
    (tmp_path / 'VOC2007/Annotations/000001.xml').write_text('<annotation>')
    with pytest.raises(UserError, match=r'000001\.xml, listed by .*train\.txt, cannot be read'):
        check_classes(cfg, ['train'])
    (tmp_path / 'VOC2007/ImageSets/train.txt').write_text('\n')
    with pytest.raises(UserError, match='empty split: it lists no image'):
        check_classes(cfg, ['train'])


def test_heads_of_another_size_name_the_flag() -> None:
    model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=80)], mask_head=dict(num_classes=2)),
        backbone=dict(num_classes=1000),
    )
    with pytest.raises(UserError, match=r'--cfg-options model\.roi_head\.bbox_head\.1\.num_classes=2'):
        check_heads(Config(dict(model=model)), ('cat', 'dog'))
    model['roi_head']['bbox_head'][1]['num_classes'] = 2
    check_heads(Config(dict(model=model)), ('cat', 'dog'))


class Images:
    """A built data set as the hosts build them: samples with a path and perhaps a size."""

    def __init__(self, *infos: dict) -> None:
        self.infos = infos

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict:
        return self.infos[index]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / 'sound.jpg'
    Image.effect_noise((64, 48), 60).convert('RGB').save(path, quality=95)
    return path


def info(path: Path, width: int = 64, height: int = 48) -> dict:
    return dict(img_path=str(path), width=width, height=height)


def test_sound_images_pass(sound: Path, tmp_path: Path) -> None:
    padded = tmp_path / 'padded.jpg'  # bytes behind the end are common and harmless
    padded.write_bytes(sound.read_bytes() + b'\0' * 40 + b'note')
    grey = tmp_path / 'grey.png'
    Image.new('L', (64, 48)).save(grey)
    check_images([Images(info(sound), info(padded)), Images(dict(img_path=str(sound), seg_map_path=str(grey)))])


def test_bad_images_are_counted_and_named(sound: Path, tmp_path: Path) -> None:
    cut = tmp_path / 'cut.jpg'
    cut.write_bytes(sound.read_bytes()[:-200])
    page = tmp_path / 'page.jpg'
    page.write_text('<html>not found</html>')
    with pytest.raises(UserError) as caught:
        check_images([Images(info(sound), info(cut), info(page), info(tmp_path / 'gone.jpg'), info(sound))])
    text = str(caught.value)
    assert '3 of 4 image files' in text
    assert f'{tmp_path / "gone.jpg"}: not there' in text
    assert f'{cut}: not readable' in text
    assert f'{page}: not readable' in text


def test_size_that_differs_from_the_annotation(sound: Path) -> None:
    with pytest.raises(UserError, match='64x48 pixels, but annotated as 48x64'):
        check_images([Images(info(sound, 48, 64))])


def test_empty_data_set_and_wrappers(sound: Path) -> None:
    with pytest.raises(UserError, match='is empty: no image is left after filtering'):
        check_images([Images()])
    repeated = Images(info(sound))
    repeated.dataset = Images(info(sound.with_name('gone.jpg')))
    with pytest.raises(UserError, match=r'gone\.jpg: not there'):
        check_images([repeated])
