"""Mask R-CNN R50-FPN on the embedded shapes: the baseline of mask_rcnn_r2n50.py.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/mask_rcnn_r50.py
"""

_base_ = [
    '../_base_/models/mask_rcnn_r50_fpn.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/demo.py',
    '../_base_/detection_runtime.py',
]

# The narrow detector of demo/faster_rcnn_r50.py, and a mask head as narrow.
channels = 128
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(out_channels=channels, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=20, roi_layer=dict(sampling_ratio=2), out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=6, reg_class_agnostic=True),
        mask_roi_extractor=dict(finest_scale=20, roi_layer=dict(sampling_ratio=2), out_channels=channels),
        mask_head=dict(num_convs=2, in_channels=channels, conv_out_channels=64, num_classes=6, class_agnostic=True),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4, save_best=None))
