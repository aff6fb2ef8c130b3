"""DSS Res2Net50-26w4s on MSRA-B: dss_r50.py with another backbone.

Recipe: paper.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use.
Run: tools/train.py configs/dss_r2n50.py
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
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
            zero_init_residual=True,
            init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net50_26w_4s'),
        )
    )
)
