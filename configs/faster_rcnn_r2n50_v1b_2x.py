"""Faster R-CNN Res2Net50-v1b-26w4s-FPN on COCO 2017, 2x: faster_rcnn_r50_2x.py with another backbone.

Recipe: fair.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use. v1b had CutMix and about 300 epochs, ResNet 90:
more differs than the network.
Run: tools/train.py configs/faster_rcnn_r2n50_v1b_2x.py
"""

_base_ = 'faster_rcnn_r50_2x.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net50_v1b_26w_4s',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        zero_init_residual=True,
        init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net50_v1b_26w_4s'),
    ),
)
