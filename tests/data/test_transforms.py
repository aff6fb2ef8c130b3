"""Difficult objects are trained on where the recipe says so, and only there."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from mmres2net.data.registered import TrainOnDifficult
from mmres2net.engine.config import load_config
from tests.data.tiny_sets import HEIGHT, OBJECT, WIDTH, XML, draw


def test_flags_are_cleared_in_a_copy() -> None:
    given = {'gt_ignore_flags': np.array([True, False]), 'other': 1}
    found = TRANSFORMS.build(dict(type='mmres2net.TrainOnDifficult'))(given)
    assert found['gt_ignore_flags'].tolist() == [False, False]
    assert found['gt_ignore_flags'].dtype == bool
    assert given['gt_ignore_flags'].tolist() == [True, False]
    assert found['other'] == 1
    with pytest.raises(KeyError, match='after LoadAnnotations'):
        TrainOnDifficult()({'img': None})


def test_in_the_recipes(tmp_path: Path) -> None:
    """One VOC image with a plain and a difficult object, listed for training and for test."""
    root = tmp_path / 'VOC2007'
    draw(root / 'JPEGImages/000001.jpg', 1)
    objects = OBJECT.format('dog', 1, 11, 19, 50), OBJECT.format('cat', 41, 11, 49, 50).replace('t>0<', 't>1<')
    files = {'Annotations/000001.xml': XML.format(width=WIDTH, height=HEIGHT, objects=''.join(objects))}
    files |= {f'ImageSets/Main/{split}.txt': '000001\n' for split in ('trainval', 'test')}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, part, ignored in (('r50_c4', 'train', 0), ('r50_c4', 'test', 1), ('r50', 'train', 1), ('r50', 'test', 1)):
        cfg = load_config(f'faster_rcnn_{name}_voc07.py')
        init_default_scope(cfg.default_scope)
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.data_root = str(tmp_path)
        sample = DATASETS.build(dataset)[0]['data_samples']
        assert (len(sample.gt_instances), len(sample.ignored_instances)) == (2 - ignored, ignored), (name, part)
