"""Data sets of salient objects: published layouts, lists, what a sample holds, and what is found before a run."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmres2net.data.check import check_before_training
from mmres2net.data.check.draw import draw_samples
from mmres2net.data.check.job import check_splits
from mmres2net.data.check.report import Report
from mmres2net.data.formats.read import read_splits
from mmres2net.data.layout import datasets_of, point_at
from mmres2net.errors import UserError
from mmres2net.saliency import SaliencyDataset

# Folders and suffix of images, folder of masks, as the official archives have them.
OFFICIAL = {
    'MSRA-B': ('', '.jpg', ''),
    'ECSSD': ('images', '.jpg', 'ground_truth_mask'),
    'PASCAL-S': ('datasets/imgs/pascal', '.jpg', 'datasets/masks/pascal'),
    'HKU-IS': ('imgs', '.png', 'gt'),
    'DUT-OMRON': ('DUT-OMRON-image', '.jpg', 'pixelwiseGT-new-PNG'),
}
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask')]


def mask_of(width: int, height: int) -> Image.Image:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return Image.fromarray(mask)


def make(root: Path, images: str, masks: str, suffix: str = '.jpg', names: str = 'abc') -> Path:
    """Write images of 8 x 6 pixels and upwards, with masks."""
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / masks).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        size = (8 + i, 6)
        Image.new('RGB', size, (40 * i, 90, 120)).save(root / images / f'{name}{suffix}')
        mask_of(*size).save(root / masks / f'{name}.png')
    return root


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    root = make(tmp_path / 'photos', 'images', 'masks')
    (root / 'train.txt').write_text('c\n\na.jpg\nb.png\n')
    return root


def names_of(dataset: SaliencyDataset) -> list[str]:
    return [Path(dataset.get_data_info(i)['img_path']).stem for i in range(len(dataset))]


@pytest.mark.parametrize('name', OFFICIAL)
def test_official_layouts(tmp_path: Path, name: str) -> None:
    images, suffix, masks = OFFICIAL[name]
    root = make(tmp_path, images, masks, suffix if images != masks else '.jpg')
    (root / images / f'._a{suffix}').write_bytes(b'a Mac made this archive')
    (root / images / 'Thumbs.db').write_bytes(b'and Windows that')
    dataset = SaliencyDataset(dataset_name=name, layout='published', data_root=str(root), pipeline=PIPELINE)
    assert names_of(dataset) == ['a', 'b', 'c']
    for i, sample in enumerate(dataset):
        assert sample['img_path'] == str(root / images / f'{"abc"[i]}{suffix}')
        assert sample['seg_map_path'] == str(root / masks / f'{"abc"[i]}.png')
        assert sample['dataset_name'] == name
        assert np.array_equal(sample['gt_seg_map'] * 255, np.asarray(mask_of(8 + i, 6)))


def test_images_of_other_suffixes_are_said(tmp_path: Path) -> None:
    """Upper and lower case are one suffix; what is left out is named, masks beside the images are not."""
    root = make(tmp_path, 'images', 'masks')
    for old, new in (('b.jpg', 'b.JPG'), ('c.jpg', 'c.webp')):
        (root / 'images' / old).rename(root / 'images' / new)
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    dataset = SaliencyDataset(dataset_name='x', data_root=str(root), pipeline=PIPELINE)
    assert names_of(dataset) == ['a', 'b']
    assert dataset[1]['gt_seg_map'].shape == (6, 9)
    assert [('c.webp' in text, 'a.jpg' in text) for text in messages] == [(True, False)]
    SaliencyDataset(dataset_name='MSRA-B', layout='published', data_root=str(make(tmp_path / 'flat', '', '')))
    assert len(messages) == 1
    logger.removeHandler(handler)


def test_a_release_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'published'.*MSRA-B, ECSSD.*'DUTS'.*data_prefix"):
        SaliencyDataset(dataset_name='DUTS', layout='published', data_root=str(tmp_path))
    with pytest.raises(UserError, match=r"'official'.*'prepared'.*'published'"):
        SaliencyDataset(dataset_name='ECSSD', layout='official', data_root=str(tmp_path))


def test_what_is_named_goes_before_the_release(tmp_path: Path) -> None:
    root = make(tmp_path, 'gt_images', 'gt', '.bmp')
    prefix = dict(img_path='gt_images', seg_map_path='gt')
    dataset = SaliencyDataset(
        dataset_name='HKU-IS', layout='published', data_root=str(root), data_prefix=prefix, img_suffix='.bmp'
    )
    assert names_of(dataset) == ['a', 'b', 'c']


def test_lists_name_with_or_without_suffix(usual: Path) -> None:
    dataset = SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='train.txt')
    assert names_of(dataset) == ['c', 'a', 'b']
    assert dataset.metainfo['classes'] == ('background', 'salient')
    info = dataset.get_data_info(1)
    assert {key: info[key] for key in ('label_map', 'reduce_zero_label', 'seg_fields')} == {
        'label_map': None,
        'reduce_zero_label': False,
        'seg_fields': [],
    }
    assert names_of(SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='train.txt', indices=2)) == [
        'c',
        'a',
    ]


def test_images_without_masks(usual: Path) -> None:
    shutil.rmtree(usual / 'masks')
    dataset = SaliencyDataset(dataset_name='x', data_root=str(usual), data_prefix=dict(img_path='images'))
    assert 'seg_map_path' not in dataset.get_data_info(0)
    check_before_training(config_of(usual, data_prefix=dict(img_path='images')), ['val'])


def test_no_list_no_folder_no_image(usual: Path) -> None:
    with pytest.raises(UserError, match=r'val\.txt'):
        SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='val.txt')
    with pytest.raises(UserError, match=r'imgs'):
        SaliencyDataset(dataset_name='x', data_root=str(usual), data_prefix=dict(img_path='imgs', seg_map_path='masks'))
    with pytest.raises(UserError, match=r"images.*'\.png'"):
        SaliencyDataset(dataset_name='x', data_root=str(usual), img_suffix='.png')
    (usual / 'train.txt').write_text('\n')
    with pytest.raises(UserError, match=r'train\.txt'):
        SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='train.txt')


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match='metainfo'):
        SaliencyDataset(dataset_name='x', metainfo=dict(classes=('a', 'b')))


# What is found before a run


def spoilt(root: Path) -> dict[str, str]:
    """Spoil one file in each way; return a part of what has to be said, by the file's name."""
    make(root, 'images', 'masks', names='defg')
    Image.new('L', (3, 3)).save(root / 'masks/a.png')
    Image.fromarray(np.asarray(mask_of(9, 6)) // 255).save(root / 'masks/b.png')
    Image.new('RGB', (10, 6), 'red').save(root / 'masks/c.png')
    (root / 'masks/d.png').unlink()
    (root / 'masks/e.png').write_bytes((root / 'masks/e.png').read_bytes()[:40])
    Image.new('L', (10, 6)).save(root / 'masks/f.png')
    return {
        'a.png': '3x3, the image 8x6',
        'b.png': 'value is 1',
        'c.png': 'colours',
        'd.png': 'd.png',
        'e.png': 'e.png: ',
    }


def test_check_before_a_run_finds_every_fault_once(usual: Path) -> None:
    expected = spoilt(usual)
    with pytest.raises(UserError) as caught:
        check_before_training(config_of(usual), ['val'])
    lines = str(caught.value).splitlines()
    assert ' 5 errors, ' in lines[0]
    for name, text in expected.items():
        assert [name in line and text in line for line in lines].count(True) == 1, name
    (usual / 'train.txt').write_text('f\ng\n')
    check_before_training(config_of(usual, ann_file='train.txt'), ['val'])


def config_of(root: Path, **changes: Any) -> Config:
    node = dict(type='mmres2net.SaliencyDataset', dataset_name='x', data_root=str(root), **changes)
    return Config(dict(default_scope='mmseg', model={}, val_dataloader=dict(dataset=node)))


def checked(root: Path, **changes: Any) -> tuple[Any, Report]:
    splits = read_splits(config_of(root, **changes), ['val'])
    return splits[0], check_splits(splits, workers=2)[0]


def found(report: Report) -> dict[str, dict[str, str]]:
    return {kind: {Path(f.where).name: f.what for f in findings} for kind, findings in report.kinds().items()}


def test_check_of_sound_files(usual: Path) -> None:
    split, report = checked(usual)
    pixels = np.concatenate([np.asarray(mask_of(8 + i, 6)).ravel() for i in range(3)])
    assert report.counts == {'background': int((pixels == 0).sum()), 'salient': int((pixels == 255).sum())}
    assert (report.findings, report.unit, report.images) == ([], 'pixels', 3)
    drawn = draw_samples(split, report, usual / 'drawn', 3)
    with Image.open(drawn[0]) as picture:
        shades = np.asarray(picture).reshape(-1, 3)
    assert len(drawn) == 3
    assert len(np.unique(shades // 64, axis=0)) > 2


def test_files_of_another_suffix_are_noted(usual: Path) -> None:
    Image.new('RGB', (9, 9)).save(usual / 'images/z.webp')
    _, report = checked(usual)
    assert list(found(report)) == ['files left out']
    assert found(checked(usual, ann_file='train.txt')[1]) == {}
    together = usual / 'together'
    shutil.copytree(usual / 'masks', together)
    shutil.copy(usual / 'images/a.jpg', together)
    for name in 'bc':
        (together / f'{name}.png').unlink()
    prefix = dict(img_path='together', seg_map_path='together')
    assert found(checked(usual, data_prefix=prefix)[1]) == {}


def test_check_names_every_fault(usual: Path) -> None:
    spoilt(usual)
    Image.new('RGBA', (11, 6), (5, 5, 5, 9)).save(usual / 'images/g.png')
    (usual / 'images/g.png').replace(usual / 'images/g.jpg')
    split, report = checked(usual)
    faults = found(report)
    assert faults['wrong mask size'] == {'a.png': '3x3, the image 8x6'}
    assert set(faults['unusable mask']) == {'b.png', 'c.png'}
    assert 'colours' in faults['unusable mask']['c.png']
    assert set(faults['missing mask']) == {'d.png'}
    assert set(faults['unreadable mask']) == {'e.png'}
    assert 'transparent' in faults['unusable image']['g.jpg']
    assert faults['mask of one class'] == {'a.png': 'background', 'f.png': 'background'}
    draw_samples(split, report, usual / 'drawn', 7)


# Folders given on the command line


def five_sets() -> Config:
    init_default_scope('mmseg')

    def dataset(name: str, **more: Any) -> dict[str, Any]:
        return dict(
            type='mmres2net.SaliencyDataset',
            dataset_name=name,
            data_root=f'data/saliency/{name}/',
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            **more,
        )

    tested = [dataset(name, img_suffix=OFFICIAL[name][1]) for name in list(OFFICIAL)[1:]]
    return Config(
        dict(
            train_dataloader=dict(dataset=dataset('MSRA-B', ann_file='train.txt')),
            test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=tested)),
        )
    )


@pytest.fixture
def five(tmp_path: Path) -> Path:
    for name in OFFICIAL:
        make(tmp_path / 'sets' / name, 'images', 'masks', OFFICIAL[name][1])
    (tmp_path / 'sets/MSRA-B/train.txt').write_text('a\nb\n')
    return tmp_path / 'sets'


def roots(cfg: Config, part: str) -> list[str]:
    return [dataset['data_root'] for dataset in datasets_of(cfg, part)]


def test_one_folder_for_five_data_sets(five: Path) -> None:
    cfg = point_at(five_sets(), five)
    assert roots(cfg, 'train') == [str(five / 'MSRA-B')]
    assert roots(cfg, 'test') == [str(five / name) for name in list(OFFICIAL)[1:]]
    tested = DATASETS.build(cfg.test_dataloader.dataset)
    assert [tested[i]['dataset_name'] for i in range(0, len(tested), 3)] == list(OFFICIAL)[1:]
    assert len(tested) == 12


def test_folder_of_one_data_set_is_not_four(five: Path) -> None:
    with pytest.raises(UserError, match=r'ECSSD.*PASCAL-S'):
        point_at(five_sets(), five / 'ECSSD', ['test'])


def test_other_parts_keep_their_places(five: Path) -> None:
    """Training on one folder says nothing of where the test sets are."""
    cfg = point_at(five_sets(), five / 'MSRA-B', ['train', 'val'])
    assert roots(cfg, 'train') == [str(five / 'MSRA-B')]
    assert roots(cfg, 'test') == [f'data/saliency/{name}/' for name in list(OFFICIAL)[1:]]
    assert roots(point_at(five_sets(), five, ['train']), 'test') == [str(five / name) for name in list(OFFICIAL)[1:]]
