"""Mask R-CNN R101-FPN on COCO 2017, as in table 8: the baseline of the mask_rcnn_r2n101*_paper.py.

Family: paper (see mask_rcnn_r50_paper.py).
Target: mask AP 35.5, box AP 39.6, published by the authors' code.
Schedule: 180,000 steps x 16 images = 24.6 epochs of 117,266 training images with boxes.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/mask_rcnn_r101_paper.py
"""

_base_ = 'mask_rcnn_r50_paper.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
