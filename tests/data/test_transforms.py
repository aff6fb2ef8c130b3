"""Difficult objects are trained on where the recipe says so, and only there."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from mmres2net.data.transforms import TrainOnDifficult
from mmres2net.engine.config import load_config

OBJECT = (
    '<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin><ymin>11</ymin>'
    '<xmax>{x}9</xmax><ymax>50</ymax></bndbox></object>'
)


def test_flags_are_cleared_in_a_copy() -> None:
    given = {'gt_ignore_flags': np.array([True, False]), 'other': 1}
    found = TRANSFORMS.build(dict(type='mmres2net.TrainOnDifficult'))(given)
    assert found['gt_ignore_flags'].tolist() == [False, False]
    assert found['gt_ignore_flags'].dtype == bool
    assert given['gt_ignore_flags'].tolist() == [True, False]
    assert found['other'] == 1


def test_out_of_place() -> None:
    with pytest.raises(KeyError, match='put it after LoadAnnotations'):
        TrainOnDifficult()({'img': None})


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """One VOC image with a plain and a difficult object, listed for training and for test."""
    from PIL import Image

    root = tmp_path / 'VOC2007'
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    Image.new('RGB', (100, 80)).save(root / 'JPEGImages' / '000001.jpg')
    objects = OBJECT.format(name='dog', difficult=0, x=1) + OBJECT.format(name='cat', difficult=1, x=4)
    size = '<size><width>100</width><height>80</height><depth>3</depth></size>'
    (root / 'Annotations' / '000001.xml').write_text(f'<annotation>{size}{objects}</annotation>')
    for split in ('trainval', 'test'):
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('000001\n')
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'part', 'ignored'),
    [
        ('faster_rcnn_r50_c4_voc07.py', 'train', 0),
        ('faster_rcnn_r50_c4_voc07.py', 'test', 1),
        ('faster_rcnn_r50_voc07.py', 'train', 1),
        ('faster_rcnn_r50_voc07.py', 'test', 1),
    ],
)
def test_in_the_recipes(voc: Path, name: str, part: str, ignored: int) -> None:
    cfg = load_config(name)
    init_default_scope(cfg.default_scope)
    dataset = cfg[f'{part}_dataloader'].dataset
    dataset.data_root = str(voc)
    sample = DATASETS.build(dataset)[0]['data_samples']
    assert len(sample.gt_instances) == 2 - ignored
    assert len(sample.ignored_instances) == ignored
