"""Faster R-CNN R101-FPN on COCO 2017, 2x: the baseline of faster_rcnn_r2n101_v1b_2x.py.

Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r101_2x.py
"""

_base_ = 'faster_rcnn_r50_2x.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
