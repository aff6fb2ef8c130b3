"""The audit of masks and of labels: what mmseg and mmpretrain read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmres2net.data.audit.image import value_counts
from mmres2net.data.audit.job import audit
from mmres2net.data.audit.read import read_splits
from mmres2net.data.audit.report import ERRORS, Report
from mmres2net.data.audit.split import Sample, Split
from mmres2net.data.shapes import CLASSES
from tests.support.realdata import data_root

LIST = 'ImageSets/Segmentation/val.txt'


def seg_config(root: Path, **changes: Any) -> Config:
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        ann_file=LIST,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        metainfo=dict(classes=('background', *CLASSES)),
    )
    return Config(dict(default_scope='mmseg', model={}, val_dataloader=dict(dataset=dataset | changes)))


def run(cfg: Config, part: str = 'val') -> Report:
    [report] = audit(read_splits(cfg, [part]), workers=2)
    return report


def found(report: Report) -> dict[str, list[tuple[str, str]]]:
    return {
        kind: [(finding.where.rsplit('/', 1)[-1], finding.what) for finding in findings]
        for kind, findings in report.kinds().items()
    }


@pytest.fixture
def voc12(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / 'VOCdevkit/VOC2012', tmp_path / 'VOC2012')
    return tmp_path / 'VOC2012'


def masks(voc12: Path) -> list[Path]:
    return [voc12 / 'SegmentationClass' / f'{name}.png' for name in (voc12 / LIST).read_text().split()]


def test_sound_masks(voc12: Path) -> None:
    report = run(seg_config(voc12))
    pixels = np.concatenate([np.asarray(Image.open(path)).ravel() for path in masks(voc12)])
    counts = np.bincount(pixels, minlength=256)
    assert (report.images, report.findings, report.unit) == (14, [], 'pixels')
    assert report.counts == {name: counts[i] for i, name in enumerate(('background', *CLASSES))}
    assert report.ignored == counts[255] > 0


def test_broken_masks(voc12: Path) -> None:
    files = masks(voc12)
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:60])
    with Image.open(files[2]) as image:
        image.convert('RGB').save(files[2])
    width, height = Image.open(files[3]).size
    Image.new('L', (width + 1, height)).save(files[3])
    mask = np.array(Image.open(files[4]))
    mask[0, :3], mask[1, :5] = 7, 200
    Image.fromarray(mask).save(files[4])
    Image.new('L', Image.open(files[5]).size, 255).save(files[5])
    (voc12 / 'JPEGImages' / f'{files[6].stem}.jpg').unlink()
    report = run(seg_config(voc12))
    assert found(report) == {
        'missing mask': [(files[0].name, '')],
        'unreadable mask': [(files[1].name, found(report)['unreadable mask'][0][1])],
        'colour mask': [(files[2].name, 'RGB')],
        'wrong mask size': [(files[3].name, f'{width + 1}x{height}, the image {width}x{height}')],
        'mask value without class': [(files[4].name, '7 (3 pixels), 200 (5 pixels)')],
        'mask without class': [(files[5].name, '')],
        'missing image': [(f'{files[6].stem}.jpg', '')],
    }
    assert report.count(ERRORS) == 6


def test_many_strange_values_are_counted(voc12: Path) -> None:
    """A mask saved with smooth edges has values between its classes."""
    path = masks(voc12)[0]
    mask = np.array(Image.open(path))
    mask[0, :20] = range(100, 120)
    Image.fromarray(mask).save(path)
    [(_, what)] = found(run(seg_config(voc12)))['mask value without class']
    assert what.startswith('100 (1 pixels), 101 (1 pixels), ')
    assert what.endswith(' and 12 values more')


def test_reduced_zero_label(voc12: Path) -> None:
    """Zero is ignored then, and the classes count from 1: the shapes without their background."""
    report = run(seg_config(voc12, reduce_zero_label=True, metainfo=dict(classes=CLASSES)))
    plain = run(seg_config(voc12))
    assert report.findings == []
    assert report.counts == {name: plain.counts[name] for name in CLASSES}
    assert report.ignored == plain.ignored + plain.counts['background']


def test_another_ignore_index(voc12: Path) -> None:
    """mmseg turns to 255 what it drops, whatever the ignore index: both are ignored where classes are dropped."""
    assert 'mask value without class' in found(run(seg_config(voc12, ignore_index=254)))
    reduced = run(seg_config(voc12, ignore_index=254, reduce_zero_label=True, metainfo=dict(classes=CLASSES)))
    assert reduced.findings == []


def test_subset_of_classes_ignores_the_rest(voc12: Path) -> None:
    """mmseg maps what a data set class knows, but the config does not name, to 255."""
    report = run(seg_config(voc12, type='PascalVOCDataset', metainfo=dict(classes=('bicycle', 'background'))))
    plain = run(seg_config(voc12))  # bicycle is VOC's class 2, which is the second shape
    assert report.counts == {'background': plain.counts['background'], 'bicycle': plain.counts[CLASSES[1]]}
    assert report.ignored == plain.ignored + sum(plain.counts[name] for name in CLASSES if name != CLASSES[1])


def test_class_that_is_never_drawn(voc12: Path) -> None:
    report = run(seg_config(voc12, metainfo=dict(classes=('background', *CLASSES, 'sphere'))))
    assert found(report) == {'empty class': [('sphere', '')]}


def test_values_as_mmseg_reads_them() -> None:
    bits = Image.fromarray(np.array([[True, False, True]]))
    assert bits.mode == '1'
    assert value_counts(bits) == {0: 1, 1: 2}
    deep = Image.fromarray(np.array([[300, 1, 300]], dtype=np.uint16))
    assert value_counts(deep) == {1: 1, 300: 2}
    assert value_counts(Image.new('RGB', (2, 2))) is None


def test_broken_list(voc12: Path) -> None:
    names = (voc12 / LIST).read_text().split()
    (voc12 / LIST).write_text('\n'.join([*names, names[0], 'absent']))
    report = run(seg_config(voc12))
    assert found(report) == {
        'missing image': [('absent.jpg', '')],
        'missing mask': [('absent.png', '')],
        'image listed twice': [(f'{names[0]}.jpg', '')],
    }
    (voc12 / LIST).write_text('')
    assert [kind for kind in found(run(seg_config(voc12))) if kind in ERRORS] == ['empty split']


# Labels


@pytest.fixture
def folders(root: Path, tmp_path: Path) -> Path:
    """Six images in folders of their classes."""
    for i, path in enumerate(sorted((root / 'train2017').iterdir())[:6]):
        place = tmp_path / 'images' / ('cat', 'dog', 'emu')[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return tmp_path


def cls_config(root: Path, **changes: Any) -> Config:
    dataset = dict(type='CustomDataset', data_root=str(root), data_prefix='images')
    return Config(dict(default_scope='mmpretrain', model={}, train_dataloader=dict(dataset=dataset | changes)))


def test_sound_folders(folders: Path) -> None:
    report = run(cls_config(folders), 'train')
    assert (report.images, report.unit, report.findings) == (6, 'images', [])
    assert report.counts == {'cat': 2, 'dog': 2, 'emu': 2}


def test_broken_folders(folders: Path) -> None:
    first, second = sorted((folders / 'images/dog').iterdir())
    first.write_bytes(first.read_bytes()[:500])
    second.unlink()
    report = run(cls_config(folders), 'train')
    assert [kind for kind in report.kinds() if kind in ERRORS] == ['unreadable image']
    assert report.counts == {'cat': 2, 'dog': 1, 'emu': 2}
    first.unlink()
    assert found(run(cls_config(folders), 'train'))['empty class'] == [('dog', '')]
    shutil.rmtree(folders / 'images/dog')
    two = run(cls_config(folders, metainfo=dict(classes=('cat', 'dog', 'emu'))), 'train')
    assert "The number of subfolders (2) doesn't match" in found(two)['broken annotation file'][0][1]


def test_list_of_labels(folders: Path) -> None:
    names = sorted(path.relative_to(folders / 'images') for path in (folders / 'images').rglob('*.jpg'))
    lines = [f'{name} {i}' for i, name in enumerate(names[:4])]
    (folders / 'train.txt').write_text('\n'.join([*lines, 'gone.jpg 0']))
    report = run(cls_config(folders, ann_file='train.txt', metainfo=dict(classes=('a', 'b', 'c'))), 'train')
    assert found(report) == {'label without class': [(names[3].name, '3')], 'missing image': [('gone.jpg', '')]}
    assert report.counts == {'a': 2, 'b': 1, 'c': 1}
    (folders / 'train.txt').write_text('no label\n')
    report = run(cls_config(folders, ann_file='train.txt'), 'train')
    assert 'ValueError' in found(report)['broken annotation file'][0][1]


def test_images_in_memory_need_no_file() -> None:
    """CIFAR's data set holds its images as arrays."""
    samples = [Sample('', pixels=np.zeros((32, 32, 3), np.uint8)) for _ in range(3)]
    split = Split('train', 'x', 'CIFAR10', ('a',), 'images', samples)
    [report] = audit([split], workers=1)
    assert (report.images, report.count(ERRORS), report.empty_classes) == (3, 0, ['a'])


@pytest.mark.realdata
def test_voc12_mini() -> None:
    dataset = dict(
        type='PascalVOCDataset',
        data_root=str(data_root('voc12_mini') / 'VOCdevkit/VOC2012'),
        ann_file='ImageSets/Segmentation/trainaug.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    )
    train = run(Config(dict(default_scope='mmseg', val_dataloader=dict(dataset=dataset))))
    val = run(Config(dict(default_scope='mmseg', val_dataloader=dict(dataset=dataset | dict(ann_file=LIST)))))
    assert (train.images, len(train.classes), train.findings) == (320, 21, [])
    assert (val.images, len(val.classes), val.findings) == (110, 21, [])
