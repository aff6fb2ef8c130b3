"""What an export knows of a model's classes before there is a checkpoint."""

import pytest

from mmres2net.engine.config import load_config
from mmres2net.export.source import meta_of


@pytest.mark.parametrize(
    ('config', 'first', 'count'),
    [
        ('deeplabv3plus_r2n50.py', 'background', 21),  # mmseg's class of the data set knows them
        ('imagenet/resnet50.py', 'tench', 1000),
        ('mask_rcnn_r2n50.py', 'person', 80),
        ('dss_r2n50.py', 'background', 2),  # four data sets in one
        ('demo/faster_rcnn_r2n50.py', 'disc', 6),  # the config itself
    ],
)
def test_classes_are_those_of_the_data_set(config: str, first: str, count: int) -> None:
    classes = meta_of({}, load_config(config))['classes']
    assert classes[0].startswith(first)
    assert len(classes) == count


def test_a_checkpoint_knows_better() -> None:
    content = {'meta': {'dataset_meta': {'classes': ('cat',)}}}
    assert meta_of(content, load_config('mask_rcnn_r2n50.py')) == {'classes': ('cat',)}
