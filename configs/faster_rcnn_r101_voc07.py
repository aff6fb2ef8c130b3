"""Faster R-CNN R101-FPN on PASCAL VOC 2007: the baseline of faster_rcnn_r2n101_v1b_voc07.py.

Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r101_voc07.py
"""

_base_ = 'faster_rcnn_r50_voc07.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
