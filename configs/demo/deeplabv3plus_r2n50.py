"""DeepLabv3+ Res2Net50-26w4s at output stride 16 on the embedded shapes: another backbone and nothing else.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/demo/deeplabv3plus_r2n50.py
"""

_base_ = 'deeplabv3plus_r50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net50_26w_4s',
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(2, 4, 8),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        zero_init_residual=True,
    )
)
