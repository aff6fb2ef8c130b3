"""Pointing configs at folders: every standard layout is found, nothing else is, and the config stays as it was."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmres2net.data.layout import datasets_of, point_at
from mmres2net.errors import UserError

COCO_FILES = ('annotations/instances_train2017.json', 'annotations/instances_val2017.json')


def coco_config() -> Config:
    def part(split: str) -> dict:
        dataset = dict(
            type='CocoDataset',
            data_root='data/coco/',
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
        )
        return dict(dataset=dataset)

    evaluator = dict(type='CocoMetric', ann_file='data/coco/annotations/instances_val2017.json')
    return Config(
        dict(
            train_dataloader=part('train'),
            val_dataloader=part('val'),
            test_dataloader=part('val'),
            val_evaluator=evaluator,
            test_evaluator=[evaluator, dict(type='DumpResults', out_file_path='x.pkl')],
        )
    )


def voc_config() -> Config:
    dataset = dict(
        type='VOCDataset',
        data_root='data/VOCdevkit/',
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
    )
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def fill(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).mkdir() if path.endswith('/') else (root / path).write_text('')
    return root


def test_coco_root_and_evaluators_follow(tmp_path: Path) -> None:
    root = fill(tmp_path / 'mini', *COCO_FILES, 'train2017/', 'val2017/')
    cfg = coco_config()
    before = copy.deepcopy(cfg.to_dict())
    moved = point_at(cfg, root)
    assert [d['data_root'] for part in ('train', 'val', 'test') for d in datasets_of(moved, part)] == [str(root)] * 3
    assert moved.val_evaluator.ann_file == str(root / COCO_FILES[1])
    assert moved.test_evaluator[0].ann_file == str(root / COCO_FILES[1])
    assert moved.test_evaluator[1].out_file_path == 'x.pkl'
    assert cfg.to_dict() == before


@pytest.mark.parametrize('given', ['holder', 'holder/VOCdevkit', 'holder/VOCdevkit/VOC2007'])
def test_voc_root_is_found_from_around_it(tmp_path: Path, given: str) -> None:
    devkit = fill(tmp_path / 'holder' / 'VOCdevkit', 'VOC2007/ImageSets/Main/trainval.txt')
    moved = point_at(voc_config(), tmp_path / given, ['train'])
    assert Path(moved.train_dataloader.dataset.data_root).resolve() == devkit.resolve()


def test_wrapped_data_sets_are_found(tmp_path: Path) -> None:
    root = fill(tmp_path, *COCO_FILES, 'train2017/', 'val2017/')
    cfg = coco_config()
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, copy.deepcopy(inner)])
    )
    moved = point_at(cfg, root)
    assert [d['data_root'] for d in datasets_of(moved, 'train')] == [str(root)] * 2


def test_only_the_parts_of_the_job_must_be_there(tmp_path: Path) -> None:
    root = fill(tmp_path, COCO_FILES[1], 'val2017/')
    assert point_at(coco_config(), root, ['test']).test_dataloader.dataset.data_root == str(root)
    with pytest.raises(UserError, match=r'missing below .*instances_train2017\.json, train2017'):
        point_at(coco_config(), root, ['train', 'val'])


def test_layout_error_says_what_is_missing_and_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, 'images/', 'labels.csv')
    with pytest.raises(UserError) as caught:
        point_at(coco_config(), tmp_path)
    text = str(caught.value)
    assert 'annotations/instances_train2017.json' in text
    assert 'images/, labels.csv' in text
    assert "'data/coco/'" in text


def test_no_folder_and_no_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no such folder'):
        point_at(coco_config(), tmp_path / 'absent')
    with pytest.raises(UserError, match='names no data_root'):
        point_at(Config(dict(train_dataloader=None)), tmp_path)
