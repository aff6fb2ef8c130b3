"""Faster R-CNN Res2Net101-v1b-26w4s-FPN on COCO 2017, 2x: faster_rcnn_r101_2x.py with another backbone.

Family: fair (today's standard settings).
Target: box AP 43.0, published by mmdet, whose own Res2Net pools another way (stage_pool='mmdet').
Schedule: 24 epochs x 117,266 training images with boxes / 16 a step = 7,330 steps an epoch.
Status: not trained at full size here; it trains and evaluates on a small part of COCO.
Weights: the official release's, CC BY-NC-SA 4.0: not for commercial use. v1b was trained with CutMix for
about 300 epochs, torchvision's ResNet plainly for 90: more differs than the network.
Run: tools/train.py configs/faster_rcnn_r2n101_v1b_2x.py
"""

_base_ = 'faster_rcnn_r101_2x.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net101_v1b_26w_4s',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        zero_init_residual=True,
        init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net101_v1b_26w_4s'),
    ),
)
