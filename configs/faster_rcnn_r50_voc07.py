"""Faster R-CNN R50-FPN on PASCAL VOC 2007, trainval to test: the baseline of faster_rcnn_r2n50_voc07.py.

17 epochs are about as many as detectron2 trains on VOC 2007 and 2012 together.
Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r50_voc07.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_fpn.py',
    '_base_/datasets/voc07_detection.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/detection_runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))

max_epochs = 17
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[11, 15], gamma=0.1),
]
