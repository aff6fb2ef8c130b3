"""Faster R-CNN R101-FPN on COCO 2017, 2x: the baseline of faster_rcnn_r2n101_v1b_2x.py.

Family: fair (today's standard settings).
Target: box AP 39.8, published by mmdet for these settings with its own ResNet-101.
Schedule: 24 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/faster_rcnn_r101_2x.py
"""

_base_ = 'faster_rcnn_r50_2x.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
