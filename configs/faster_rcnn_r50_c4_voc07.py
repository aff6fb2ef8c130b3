"""Faster R-CNN R50-C4 on PASCAL VOC 2007, trainval to test: the baseline of faster_rcnn_r2n50_c4_voc07.py.

A single feature map at stride 16, as in the public code nearest to the paper's baseline. 70,000 steps of one image; the
learning rate falls after 50,000.
Recipe: paper.
Run: tools/train.py configs/faster_rcnn_r50_c4_voc07.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_c4.py',
    '_base_/datasets/voc07_detection.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/detection_runtime.py',
]

model = dict(rpn_head=dict(anchor_generator=dict(scales=[8, 16, 32])), roi_head=dict(bbox_head=dict(num_classes=20)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='mmres2net.TrainOnDifficult'),
    dict(type='Resize', scale=(1000, 600), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))

max_epochs = 14
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[10], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=1)
