"""Faster R-CNN R101-FPN on COCO 2017, 1x: the baseline of faster_rcnn_r2n101_v1b.py.

Family: fair (today's standard settings).
Target: box AP 39.4, published by mmdet for these settings with its own ResNet-101.
Schedule: 12 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/faster_rcnn_r101.py
"""

_base_ = 'faster_rcnn_r50.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
