"""Mask R-CNN R101-FPN on COCO 2017, 1x: the baseline of the mask_rcnn_r2n101*.py.

Recipe: fair.
Run: tools/train.py configs/mask_rcnn_r101.py
"""

_base_ = 'mask_rcnn_r50.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
