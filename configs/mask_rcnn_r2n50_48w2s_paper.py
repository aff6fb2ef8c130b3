"""Mask R-CNN Res2Net50-48w2s-FPN on COCO 2017, as in table 8: mask_rcnn_r50_paper.py with another backbone.

Recipe: paper.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use.
Run: tools/train.py configs/mask_rcnn_r2n50_48w2s_paper.py
"""

_base_ = 'mask_rcnn_r50_paper.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net50_48w_2s',
        out_indices=(0, 1, 2, 3),
        stage_pool='maskrcnn',
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        zero_init_residual=True,
        init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net50_48w_2s'),
    ),
)
