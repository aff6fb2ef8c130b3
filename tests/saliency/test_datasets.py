"""Data sets of salient objects: published layouts, lists, what a sample holds, and what is found before a run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmres2net.data.check.before import check_before_training
from mmres2net.data.check.draw import draw_samples
from mmres2net.data.check.job import Report, check_splits
from mmres2net.data.formats.read import read_splits
from mmres2net.errors import UserError
from mmres2net.saliency import SaliencyDataset

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask')]


def mask_of(width: int, height: int) -> Image.Image:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return Image.fromarray(mask)


def make(root: Path, images: str, masks: str, suffix: str = '.jpg', names: str = 'abc') -> Path:
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


@pytest.mark.parametrize(('images', 'suffix', 'masks'), [('', '.jpg', ''), ('imgs', '.png', 'gt')])
def test_folders_as_they_are_published(tmp_path: Path, images: str, suffix: str, masks: str) -> None:
    root = make(tmp_path, images, masks, suffix)
    (root / images / f'._a{suffix}').write_bytes(b'a Mac made this archive')
    (root / images / 'Thumbs.db').write_bytes(b'and Windows that')
    options = dict(data_prefix=dict(img_path=images, seg_map_path=masks), img_suffix=suffix, pipeline=PIPELINE)
    dataset = SaliencyDataset(dataset_name='own', data_root=str(root), **options)
    assert names_of(dataset) == ['a', 'b', 'c']
    for i, sample in enumerate(dataset):
        assert sample['img_path'] == str(root / images / f'{"abc"[i]}{suffix}')
        assert sample['seg_map_path'] == str(root / masks / f'{"abc"[i]}.png')
        assert sample['dataset_name'] == 'own'
        assert np.array_equal(sample['gt_seg_map'] * 255, np.asarray(mask_of(8 + i, 6)))


REFUSED = [
    (dict(ann_file='val.txt'), r'val\.txt'), (dict(ann_file='empty.txt'), r'empty\.txt'),
    (dict(data_prefix=dict(img_path='imgs', seg_map_path='masks')), 'imgs'), (dict(img_suffix='.png'), r"'\.png'"),
]  # fmt: skip


@pytest.mark.parametrize(('options', 'message'), REFUSED)
def test_what_is_refused(usual: Path, options: dict[str, Any], message: str) -> None:
    (usual / 'empty.txt').write_text('\n')
    with pytest.raises(UserError, match=message):
        SaliencyDataset(**{'dataset_name': 'x', 'data_root': str(usual), **options})


def test_lists_name_with_or_without_suffix(usual: Path) -> None:
    dataset = SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='train.txt')
    assert names_of(dataset) == ['c', 'a', 'b']
    assert dataset.metainfo['classes'] == ('background', 'salient')
    first = SaliencyDataset(dataset_name='x', data_root=str(usual), ann_file='train.txt', indices=2)
    assert names_of(first) == ['c', 'a']


def test_images_without_masks(usual: Path) -> None:
    shutil.rmtree(usual / 'masks')
    dataset = SaliencyDataset(dataset_name='x', data_root=str(usual), data_prefix=dict(img_path='images'))
    assert 'seg_map_path' not in dataset.get_data_info(0)
    check_before_training(config_of(usual, data_prefix=dict(img_path='images')), ['val'])


def spoilt(root: Path) -> dict[str, str]:
    """Spoil one file in each way; return a part of what has to be said, by the file's name."""
    make(root, 'images', 'masks', names='defg')
    Image.new('L', (3, 3)).save(root / 'masks/a.png')
    Image.fromarray(np.asarray(mask_of(9, 6)) // 255).save(root / 'masks/b.png')
    Image.new('RGB', (10, 6), 'red').save(root / 'masks/c.png')
    (root / 'masks/d.png').unlink()
    (root / 'masks/e.png').write_bytes((root / 'masks/e.png').read_bytes()[:40])
    Image.new('L', (10, 6)).save(root / 'masks/f.png')
    said = {'a': '3x3, the image 8x6', 'b': 'value is 1', 'c': 'colours', 'd': 'd.png', 'e': 'e.png: '}
    return {f'{name}.png': text for name, text in said.items()}


def config_of(root: Path, **changes: Any) -> Config:
    node = dict(type='mmres2net.SaliencyDataset', dataset_name='x', data_root=str(root), **changes)
    return Config(dict(default_scope='mmseg', model={}, val_dataloader=dict(dataset=node)))


def checked(root: Path, **changes: Any) -> Report:
    return check_splits(read_splits(config_of(root, **changes), ['val']))[0]


def test_check_of_sound_files(usual: Path) -> None:
    report = checked(usual)
    pixels = np.concatenate([np.asarray(mask_of(8 + i, 6)).ravel() for i in range(3)])
    assert report.counts == {'background': int((pixels == 0).sum()), 'salient': int((pixels == 255).sum())}
    assert (report.findings, report.split.unit, report.images) == ([], 'pixels', 3)
    assert len(draw_samples(report, usual / 'drawn', 3)) == 3


def test_every_fault_is_found_once(usual: Path) -> None:
    expected = spoilt(usual)
    with pytest.raises(UserError) as caught:
        check_before_training(config_of(usual), ['val'])
    lines = str(caught.value).splitlines()
    assert ' 5 errors, ' in lines[0]
    for name, text in expected.items():
        assert [name in line and text in line for line in lines].count(True) == 1, name
    (usual / 'train.txt').write_text('f\ng\n')
    check_before_training(config_of(usual, ann_file='train.txt'), ['val'])
    report = checked(usual)
    found = {kind: {Path(f.where).stem for f in findings} for kind, findings in report.kinds().items()}
    kinds = {'wrong mask size': 'a', 'unusable mask': 'bc', 'missing mask': 'd', 'unreadable mask': 'e'}
    assert {kind: found[kind] for kind in kinds} == {kind: set(names) for kind, names in kinds.items()}
    draw_samples(report, usual / 'drawn', 7)
