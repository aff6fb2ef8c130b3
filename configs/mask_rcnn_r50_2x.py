"""Mask R-CNN R50-FPN on COCO 2017, 2x: the baseline of the mask_rcnn_r2n50*_2x.py.

Family: fair (today's standard settings).
Target: box AP 39.2, mask AP 35.4, published by mmdet for these settings.
Schedule: 24 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/mask_rcnn_r50_2x.py
"""

_base_ = [
    '_base_/models/mask_rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/sgd_2x.py',
    '_base_/runtime.py',
]
