"""Mask R-CNN R101-FPN on COCO 2017, 2x: the baseline of the mask_rcnn_r2n101*_2x.py.

Family: fair (today's standard settings).
Target: box AP 40.8, mask AP 36.6, published by mmdet for these settings.
Schedule: 24 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/mask_rcnn_r101_2x.py
"""

_base_ = 'mask_rcnn_r50_2x.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
