"""Faster R-CNN Res2Net50-26w4s-FPN on the embedded shapes, from random weights: another backbone and nothing else.

It shows that the whole chain learns, in minutes on two CPU cores; its figures rank no backbone.

Family: demo.
Target: none.
Schedule: 4 epochs x 392 images with objects / 4 a step = 98 steps an epoch.
Status: trained here, 7 minutes: box AP 0.451, AP50 0.832.
Run: tools/train.py configs/demo/faster_rcnn_r2n50.py
"""

_base_ = 'faster_rcnn_r50.py'

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
