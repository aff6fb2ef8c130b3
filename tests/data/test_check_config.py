"""What a config says of its data: sound configs of the OpenMMLab libraries pass, and each misfit names its setting."""

import importlib.util
from pathlib import Path

import pytest
from mmengine.config import Config

from mmres2net.data.check.before import OTHER_LABELS, evaluator_faults, head_faults
from mmres2net.data.formats.read import classes_of, dataset_class
from mmres2net.data.layout import datasets_of

CLASSES = ('cat', 'dog')
# Heads of other classes than the data set's: stuff, boundaries, words, identities; and plain ones.
OTHERS = [
    'mmdet/htc/htc_r50_fpn_1x_coco.py', 'mmdet/panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'mmdet/bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
    'mmdet/grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py',
    'mmdet/cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 'mmdet/pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
    'mmseg/stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
    'mmseg/point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', 'mmpretrain/resnet/resnet50_8xb32_in1k.py',
]  # fmt: skip


def config_root(library: str) -> Path:
    spec = importlib.util.find_spec(library)
    assert spec is not None
    return Path((spec.submodule_search_locations or [''])[0]) / '.mim/configs'


def misfits(name: str) -> list[str]:
    library, _, path = name.partition('/')
    cfg = Config.fromfile(config_root(library) / path)
    messages = []
    for part in ('train', 'val', 'test'):
        kinds: set[str] = set()
        for dataset in datasets_of(cfg, part):
            bases = {base.__name__ for base in dataset_class(cfg, dataset).__mro__}
            classes, kinds = classes_of(cfg, dataset), kinds | bases
            if classes and not bases & OTHER_LABELS:
                messages += head_faults(cfg.get('model'), classes)
        messages += [] if 'CocoPanopticDataset' in kinds else evaluator_faults(cfg, part)
    return messages


@pytest.mark.parametrize('name', OTHERS)
def test_sound_configs_pass(name: str) -> None:
    assert misfits(name) == []


def test_all_heads_of_another_size_are_named_at_once() -> None:
    model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(
            bbox_head=[dict(num_classes=80), dict(num_classes=2), dict(num_classes=80)],
            mask_head=dict(num_classes=80),
            semantic_head=dict(num_classes=183),
        ),
        backbone=dict(num_classes=1000),
        auxiliary_head=[dict(type='FCNHead', num_classes=19), dict(type='STDCHead', num_classes=2)],
    )
    [message] = head_faults(model, CLASSES)
    heads = ('roi_head.bbox_head.0', 'roi_head.bbox_head.2', 'roi_head.mask_head', 'auxiliary_head.0')
    flags = ' '.join(f'model.{head}.num_classes=2' for head in heads)
    assert f'--cfg-options {flags}' in message
    assert message.count('num_classes=2') == len(heads)
    for head in (*model['roi_head']['bbox_head'], model['roi_head']['mask_head'], model['auxiliary_head'][0]):
        head['num_classes'] = 2
    assert head_faults(model, CLASSES) == []
    for kind, fits in ((type('STDCHead', (), {}), True), (dict, False)):  # given as a class
        assert (head_faults(dict(auxiliary_head=dict(type=kind, num_classes=3)), CLASSES) == []) == fits


def test_evaluators_read_the_files_of_their_data_set() -> None:
    dataset = dict(type='CocoDataset', data_root='root', ann_file='val.json')
    for evaluators, wrong in (
        (dict(ann_file='./root/x/../val.json'), []),
        ([dict(ann_file='root/val.json'), dict(ann_file='root/x')], ['val_evaluator.1.ann_file=root/val.json']),
        (dict(metrics=[dict(ann_file='val.json')]), ['val_evaluator.metrics.0.ann_file=root/val.json']),
        (None, []),
    ):
        cfg = Config(dict(val_dataloader=dict(dataset=dataset), val_evaluator=evaluators))
        messages = list(evaluator_faults(cfg, 'val'))
        assert len(messages) == len(wrong)
        assert all(f'--cfg-options {flag}' in message for message, flag in zip(messages, wrong, strict=True))
