"""Faster R-CNN R50-C4 on COCO 2017 at 600 pixels: the baseline of faster_rcnn_r2n50_c4.py.

A single feature map at stride 16, as in the public code nearest to the paper's baseline. The paper states no schedule;
this one is a guess from public code that reaches 32 to 34 AP at 600 pixels.
Recipe: paper.
Run: tools/train.py configs/faster_rcnn_r50_c4.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_c4.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/detection_runtime.py',
]

load_image = dict(type='LoadImageFromFile')
load_boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(1000, 600), keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [load_image, load_boxes, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [load_image, resize, load_boxes, dict(type='PackDetInputs', meta_keys=meta_keys)]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8], gamma=0.1)]
