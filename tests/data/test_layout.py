"""Pointing configs at folders: standard layouts are found, no other folder is read, the config stays unchanged."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmres2net.data.layout import datasets_of, point_at
from mmres2net.errors import UserError

COCO_FILES = ('annotations/instances_train2017.json', 'annotations/instances_val2017.json')


def coco_config() -> Config:
    evaluator = dict(type='CocoMetric', ann_file='data/coco/annotations/instances_val2017.json')
    cfg = dict(val_evaluator=evaluator, test_evaluator=[evaluator, dict(type='DumpResults', out_file_path='x.pkl')])
    for part, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        files = dict(ann_file=f'annotations/instances_{split}2017.json', data_prefix=dict(img=f'{split}2017/'))
        cfg[f'{part}_dataloader'] = dict(dataset=dict(type='CocoDataset', data_root='data/coco/', **files))
    return Config(cfg)


def voc_config() -> Config:
    files = dict(ann_file='VOC2007/ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root='VOC2007/'))
    return Config(dict(train_dataloader=dict(dataset=dict(type='VOCDataset', data_root='data/VOCdevkit/', **files))))


def fill(root: Path, *paths: str) -> Path:
    for path in paths or (*COCO_FILES, 'train2017/', 'val2017/'):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).mkdir() if path.endswith('/') else (root / path).write_text('')
    return root


def test_coco_root_and_evaluators_follow(tmp_path: Path) -> None:
    root = fill(tmp_path / 'mini')
    cfg = coco_config()
    cfg.val_dataloader.dataset.label_file = 'data/coco/labels.txt'  # below its root, whatever that is called
    before = copy.deepcopy(cfg.to_dict())
    moved = point_at(cfg, root)
    assert [d['data_root'] for part in ('train', 'val', 'test') for d in datasets_of(moved, part)] == [str(root)] * 3
    assert moved.val_dataloader.dataset.label_file == 'data/coco/labels.txt'
    assert moved.val_evaluator.ann_file == str(root / COCO_FILES[1])
    assert moved.test_evaluator[0].ann_file == str(root / COCO_FILES[1])
    assert moved.test_evaluator[1].out_file_path == 'x.pkl'
    assert cfg.to_dict() == before


@pytest.mark.parametrize('given', ['holder', 'holder/VOCdevkit'])
def test_voc_root_is_found_from_around_it(tmp_path: Path, given: str) -> None:
    devkit = fill(tmp_path / 'holder' / 'VOCdevkit', 'VOC2007/ImageSets/Main/trainval.txt')
    moved = point_at(voc_config(), tmp_path / given, ['train'])
    assert Path(moved.train_dataloader.dataset.data_root).resolve() == devkit.resolve()


def test_only_the_parts_of_the_job_must_be_there(tmp_path: Path) -> None:
    root = fill(tmp_path / 'sets', COCO_FILES[1], 'val2017/')
    (root / 'new_version').mkdir()
    assert point_at(coco_config(), root, ['test']).test_dataloader.dataset.data_root == str(root)
    with pytest.raises(UserError, match=r'missing below .*instances_train2017\.json, train2017'):
        point_at(coco_config(), root, ['train', 'val'])
    with pytest.raises(UserError, match=f'--data {root}$'):  # the parent is named, and not read
        point_at(coco_config(), root / 'new_version', ['test'])


@pytest.mark.parametrize('container', [list, tuple])
def test_paths_are_rewritten_by_meaning(tmp_path: Path, container: type) -> None:
    """Only keys that hold paths, and only paths below the old root: not texts that begin alike."""
    root = fill(tmp_path / 'mini')
    cfg = coco_config()
    evaluators = [
        dict(type='A', ann_file='data/coco/annotations/x.json', prefix='data/coco/', outfile_prefix='data/coco/out'),
        dict(type='B', ann_file='data/coco_gt/val.json', seg_prefix='data/coco/seg'),
        dict(type='C', ann_file='./data/coco/y.json', nested=dict(ann_file='data/coco/z.json')),
    ]
    cfg = Config(dict(cfg.to_dict(), val_evaluator=container(evaluators)))
    first, second, third = point_at(cfg, root).val_evaluator
    assert (first.ann_file, first.prefix) == (str(root / 'annotations/x.json'), 'data/coco/')
    assert first.outfile_prefix == 'data/coco/out'
    assert (second.ann_file, second.seg_prefix) == ('data/coco_gt/val.json', str(root / 'seg'))
    assert (third.ann_file, third.nested.ann_file) == (str(root / 'y.json'), str(root / 'z.json'))


def test_no_folder_and_no_root(tmp_path: Path) -> None:
    for cfg, folder, named in (
        (coco_config(), tmp_path / 'absent', '--data'),
        (coco_config(), '', '--data'),
        (coco_config(), tmp_path, COCO_FILES[0]),
        (Config(dict(train_dataloader=None)), tmp_path, 'data_root'),
    ):
        with pytest.raises(UserError, match=named):
            point_at(cfg, folder)
