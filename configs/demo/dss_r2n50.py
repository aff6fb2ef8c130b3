"""DSS Res2Net50-26w4s on the embedded shapes, from random weights: another backbone and nothing else.

It shows that the whole chain learns, in minutes on two CPU cores; its figures rank no backbone.

Family: demo.
Target: none.
Schedule: 4 epochs x 392 images / 4 a step = 98 steps an epoch.
Status: trained here: maxF 0.716, MAE 0.104 on the 98 test images.
Run: tools/train.py configs/demo/dss_r2n50.py
"""

_base_ = 'dss_r50.py'

model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True,
            type='mmres2net.Res2Net',
            arch='res2net50_26w_4s',
            out_indices=(0, 1, 2, 3),
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            norm_cfg=dict(type='BN', requires_grad=True),
            norm_eval=False,
            zero_init_residual=True,
        )
    )
)
