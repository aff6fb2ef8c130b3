"""Mask R-CNN R101-FPN on COCO 2017, as in table 8: the baseline of the mask_rcnn_r2n101*_paper.py.

Recipe: paper.
Run: tools/train.py configs/mask_rcnn_r101_paper.py
"""

_base_ = 'mask_rcnn_r50_paper.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
