"""Faster R-CNN R50-FPN on COCO 2017, 2x: the baseline of the other faster_rcnn_*_2x.py.

Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r50_2x.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/sgd_2x.py',
    '_base_/detection_runtime.py',
]
