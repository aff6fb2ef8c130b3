"""Mask R-CNN R50-FPN on COCO 2017 as in the paper's table 8: the baseline of the mask_rcnn_r2n50*_paper.py.

As in the authors' config, each stage's stride sits in the 1x1 convolution, where the weights did not have it.
With it in the 3x3 one mmdet publishes a mask AP of 35.4, see mask_rcnn_r50_2x.py.
Recipe: paper.
Run: tools/train.py configs/mask_rcnn_r50_paper.py
"""

_base_ = [
    '_base_/models/mask_rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/sgd_180k.py',
    '_base_/detection_runtime.py',
]

# maskrcnn-benchmark's: smooth L1, two samples a bin, no half-pixel shift, no anchors across the border
roi_layer = dict(sampling_ratio=2, aligned=False)
model = dict(
    backbone=dict(style='caffe', norm_cfg=dict(requires_grad=False)),
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_layer),
        bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0)),
        mask_roi_extractor=dict(roi_layer=roi_layer),
    ),
    train_cfg=dict(rpn=dict(allowed_border=0)),
)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=20_000))
log_processor = dict(by_epoch=False)
