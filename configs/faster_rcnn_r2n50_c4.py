"""Faster R-CNN Res2Net50-26w4s-C4 on COCO 2017 at 600 pixels: faster_rcnn_r50_c4.py with another backbone.

Recipe: paper.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use.
Run: tools/train.py configs/faster_rcnn_r2n50_c4.py
"""

_base_ = 'faster_rcnn_r50_c4.py'

norm_cfg = dict(type='BN', requires_grad=False)
weights = dict(type='mmres2net.Pretrained', checkpoint='res2net50_26w_4s')
shared = dict(_delete_=True, arch='res2net50_26w_4s', norm_cfg=norm_cfg, norm_eval=True, init_cfg=weights)
model = dict(
    backbone=dict(**shared, type='mmres2net.Res2Net', out_indices=(2,), frozen_stages=1, zero_init_residual=True),
    roi_head=dict(shared_head=dict(**shared, type='mmres2net.Res2LayerHead', stage=3, stride=2)),
)
