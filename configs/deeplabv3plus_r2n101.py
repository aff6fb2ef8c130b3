"""DeepLabv3+ Res2Net101-26w4s on VOC 2012 with SBD at output stride 16: deeplabv3plus_r101.py with another backbone.

Recipe: paper.
Weights: the official release, CC BY-NC-SA 4.0, not for commercial use.
Run: tools/train.py configs/deeplabv3plus_r2n101.py
"""

_base_ = 'deeplabv3plus_r101.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmres2net.Res2Net',
        arch='res2net101_26w_4s',
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(2, 4, 8),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        zero_init_residual=True,
        init_cfg=dict(type='mmres2net.Pretrained', checkpoint='res2net101_26w_4s'),
    ),
)
