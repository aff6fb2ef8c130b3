"""Faster R-CNN R50-C4 on PASCAL VOC 2007, trainval to test: the baseline of faster_rcnn_r2n50_c4_voc07.py.

Family: paper (single stride-16 map, as the public code nearest to the paper trains it).
Target: AP at IoU 0.5, 11 points: 72.1, published by the paper (table 5).
Schedule: 14 epochs x 5,011 images / 1 a step = 5,011 steps an epoch; 70,000 steps, the rate falls after 50,000.
Status: not trained at full size here; it trains and evaluates on a small part of VOC.
Run: tools/train.py configs/faster_rcnn_r50_c4_voc07.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_c4.py',
    '_base_/datasets/voc07_detection.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/runtime.py',
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
