"""Faster R-CNN R50-FPN on COCO 2017, 1x: the baseline of faster_rcnn_r2n50.py.

Recipe: fair.
Run: tools/train.py configs/faster_rcnn_r50.py
"""

_base_ = [
    '_base_/models/faster_rcnn_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/detection_runtime.py',
]
