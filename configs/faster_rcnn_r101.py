"""Faster R-CNN R101-FPN on COCO 2017, 1x: the baseline of faster_rcnn_r2n101_v1b.py.

Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r101.py
"""

_base_ = 'faster_rcnn_r50.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
