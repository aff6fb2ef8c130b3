"""Mask R-CNN R50-FPN on COCO 2017, 2x: the baseline of the mask_rcnn_r2n50*_2x.py.

Recipe: fair.
Run: tools/train.py configs/mask_rcnn_r50_2x.py
"""

_base_ = [
    '_base_/models/mask_rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/sgd_2x.py',
    '_base_/detection_runtime.py',
]
