"""Learning sixteen real photographs by heart: it needs targets, losses, decoding and evaluation that agree."""

import json
from pathlib import Path

import pytest

from mmres2net.cli import main
from mmres2net.paths import config_dir
from tests.support.realdata import data_root

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
DETECTOR = """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask={masks})]
resize = dict(type='Resize', scale={scale}, keep_ratio=True)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, sampler=dict(type='InfiniteSampler'),
    dataset=dict(indices=16, pipeline=[*load, resize, dict(type='PackDetInputs')]),
)
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        {split}, indices=16, pipeline=[load[0], resize, load[1], dict(type='PackDetInputs', meta_keys=meta_keys)]
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
MASKS = """
model['roi_head']['mask_roi_extractor'] = dict(roi_layer=dict(sampling_ratio=2))
val_evaluator = dict(ann_file='data/coco/annotations/instances_train2017.json')
"""
SEGMENTOR = """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(indices=16, pipeline=[*load, resize, dict(type='PackSegInputs')]),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        ann_file='ImageSets/Segmentation/trainaug.txt', data_prefix=dict(seg_map_path='SegmentationClassAug'),
        indices=16, pipeline=[load[0], resize, load[1], dict(type='PackSegInputs')],
    ),
)
size = (161, 161)
model = dict(
    backbone=dict(zero_init_residual=True), data_preprocessor=dict(size=size, test_cfg=dict(size=size)),
)
"""
VOC = DETECTOR.format(masks=False, scale=(192, 144), split="ann_file='VOC2007/ImageSets/Main/trainval.txt'")
TRAIN = "ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')"
COCO = DETECTOR.format(masks=True, scale=(224, 168), split=TRAIN) + MASKS
CASES: dict[str, tuple[str, int, str, str, float]] = {
    # by recipe: what is changed, steps, data, metric and the least that it has to be
    'faster_rcnn_r2n50_voc07.py': (VOC, 240, 'voc07_mini', 'pascal_voc/mAP', 0.8),
    'mask_rcnn_r2n50.py': (COCO, 260, 'coco_mini', 'coco/segm_mAP_50', 0.6),
    'deeplabv3plus_r2n50.py': (SEGMENTOR, 160, 'voc12_mini', 'mIoU', 80),
}


def train(config: str, data: str, folder: Path, *flags: str) -> dict[str, float]:
    assert main(['train', config, '--data', str(data_root(data)), '--work-dir', str(folder / 'run'), *flags]) == 0
    (scalars,) = folder.glob('run/*/vis_data/scalars.json')
    return json.loads(scalars.read_text().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize('recipe', CASES)
def test_sixteen_images_are_learned(recipe: str, tmp_path: Path) -> None:
    text, steps, data, metric, least = CASES[recipe]
    (tmp_path / 'config.py').write_text(QUICK.format(base=str(config_dir() / recipe), steps=steps) + text)
    assert train(str(tmp_path / 'config.py'), data, tmp_path, '--from-scratch', '--skip-data-check')[metric] > least


@pytest.mark.slow
@pytest.mark.realdata
def test_salient_objects_are_found_on_other_photographs(tmp_path: Path) -> None:
    """A third of the recipe. Of maps that do not look at the image, Gaussians around its middle, the best has 0.587."""
    keys = ('train_cfg.max_epochs', 'train_cfg.val_interval', 'param_scheduler.1.end', 'param_scheduler.1.T_max')
    options = [f'{key}=8' for key in keys]
    assert train('demo/dss_r2n50_photos.py', 'ecssd_mini', tmp_path, '--cfg-options', *options)['maxF'] > 0.607
