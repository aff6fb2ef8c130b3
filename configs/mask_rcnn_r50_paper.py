"""Mask R-CNN R50-FPN on COCO 2017 as in the paper's table 8: the baseline of the mask_rcnn_r2n50*_paper.py.

Family: paper (as the authors' config really is: each stage's stride sits in the 1x1 convolution, where the weights did
not have it; mmdet publishes a mask AP of 35.4 with it in its place, see mask_rcnn_r50_2x.py).
Target: mask AP 33.9, published by the paper (table 8: AP S/M/L 14.8/36.0/50.9, AP50 55.2, AR 25.0/49.3/62.0/45.9).
Schedule: 180,000 steps x 16 images = 24.6 epochs of 117,266 training images with boxes.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Run: tools/train.py configs/mask_rcnn_r50_paper.py
"""

_base_ = [
    '_base_/models/mask_rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/sgd_180k.py',
    '_base_/runtime.py',
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
