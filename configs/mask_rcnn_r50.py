"""Mask R-CNN R50-FPN on COCO 2017, 1x: the baseline of the mask_rcnn_r2n50*.py.

Family: fair (today's standard settings).
Target: box AP 38.2, mask AP 34.7, published by mmdet for these settings.
Schedule: 12 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/mask_rcnn_r50.py
"""

_base_ = [
    '_base_/models/mask_rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/runtime.py',
]
