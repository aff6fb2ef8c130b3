"""Mask R-CNN Res2Net101-26w4s-FPN on COCO 2017, 1x: mask_rcnn_r101.py with another backbone.

Recipe: fair.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use.
Run: tools/train.py configs/mask_rcnn_r2n101.py
"""

_base_ = 'mask_rcnn_r101.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net101_26w_4s',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        zero_init_residual=True,
        init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net101_26w_4s'),
    ),
)
