"""Learning sixteen real photographs by heart: only if targets, losses, decoding and evaluation agree is the score high.

Each test trains the recipe's own model on the first sixteen images of a split and tests it on the same, smaller, and
with what random weights need to learn in so few steps.
"""

import json
from pathlib import Path

import pytest

from mmres2net.cli import main
from mmres2net.paths import config_dir
from tests.support.realdata import data_root

IMAGES = 16
QUICK = """
_base_ = {base!r}
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.0008), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end={steps}, T_max={steps}),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={steps}, val_interval={steps})
default_hooks = dict(checkpoint=dict(by_epoch=False, interval={steps}, save_best=None), logger=dict(interval=20))
log_processor = dict(by_epoch=False)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
"""
DETECTOR = (
    QUICK
    + """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask={masks})]
resize = dict(type='Resize', scale={scale}, keep_ratio=True)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, sampler=dict(type='InfiniteSampler'),
    dataset=dict(indices={images}, pipeline=[*load, resize, dict(type='PackDetInputs')]),
)
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        {split}, indices={images}, pipeline=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=meta_keys)]
    ),
)
model = dict(
    backbone=dict(zero_init_residual=True),
    neck=dict(norm_cfg=dict(type='BN')),
    roi_head=dict(
        bbox_head=dict(reg_class_agnostic=True), bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2))
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=200), rcnn=dict(sampler=dict(num=64))),
)
"""
)
MASKS = """
model['roi_head']['mask_roi_extractor'] = dict(roi_layer=dict(sampling_ratio=2))
val_evaluator = dict(ann_file='data/coco/annotations/instances_train2017.json')
"""
SEGMENTOR = (
    QUICK
    + """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(indices={images}, pipeline=[*load, resize, dict(type='PackSegInputs')]),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        ann_file='ImageSets/Segmentation/trainaug.txt', data_prefix=dict(seg_map_path='SegmentationClassAug'),
        indices={images}, pipeline=[load[0], resize, load[1], dict(type='PackSegInputs')],
    ),
)
size = (161, 161)
model = dict(
    backbone=dict(zero_init_residual=True), data_preprocessor=dict(size=size, test_cfg=dict(size=size)),
)
"""
)


def train(text: str, data: Path, folder: Path) -> dict[str, float]:
    """Train the config from random weights and return the figures of its last evaluation."""
    (folder / 'config.py').write_text(text)
    flags = ['--data', str(data), '--work-dir', str(folder / 'run'), '--from-scratch', '--skip-data-check']
    assert main(['train', str(folder / 'config.py'), *flags]) == 0
    (scalars,) = folder.glob('run/*/vis_data/scalars.json')
    return json.loads(scalars.read_text().splitlines()[-1])


def recipe(name: str) -> str:
    return str(config_dir() / name)


@pytest.mark.slow
@pytest.mark.realdata
def test_boxes(tmp_path: Path) -> None:
    split = "ann_file='VOC2007/ImageSets/Main/trainval.txt'"
    options = dict(base=recipe('faster_rcnn_r2n50_voc07.py'), steps=240, images=IMAGES, masks=False)
    final = train(DETECTOR.format(**options, scale=(192, 144), split=split), data_root('voc07_mini'), tmp_path)
    assert final['pascal_voc/mAP'] > 0.8


@pytest.mark.slow
@pytest.mark.realdata
def test_masks(tmp_path: Path) -> None:
    split = "ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')"
    options = dict(base=recipe('mask_rcnn_r2n50.py'), steps=260, images=IMAGES, masks=True)
    text = DETECTOR.format(**options, scale=(224, 168), split=split) + MASKS
    final = train(text, data_root('coco_mini'), tmp_path)
    assert final['coco/segm_mAP_50'] > 0.6


@pytest.mark.slow
@pytest.mark.realdata
def test_segmentation(tmp_path: Path) -> None:
    text = SEGMENTOR.format(base=recipe('deeplabv3plus_r2n50.py'), steps=160, images=IMAGES)
    final = train(text, data_root('voc12_mini'), tmp_path)
    assert final['mIoU'] > 80
