"""Mask R-CNN Res2Net50-26w4s-FPN on the embedded shapes: mask_rcnn_r50.py with another backbone.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/mask_rcnn_r2n50.py
"""

_base_ = 'mask_rcnn_r50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net50_26w_4s',
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        zero_init_residual=True,
    )
)
