"""Mask R-CNN R101-FPN on COCO 2017, 2x: the baseline of the mask_rcnn_r2n101*_2x.py.

Recipe: fair.
Run: tools/train.py configs/mask_rcnn_r101_2x.py
"""

_base_ = 'mask_rcnn_r50_2x.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
