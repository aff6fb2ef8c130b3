"""DSS Res2Net50-26w4s on MSRA-B: dss_r50.py with another backbone.

Family: paper (the training and test sets are the paper's; it states no setting but "other configurations unchanged" of
DSS, whose ResNet form and solver are public in part: the _base_ files tell what is known and what is not).
Target: F / MAE of ECSSD .926/.056, PASCAL-S .841/.099, HKU-IS .905/.050, DUT-OMRON .800/.071, published by the paper
(table 9); it does not say which F. Compare maxF.
Schedule: 12,000 steps x 10 images = 48.0 epochs of 2,500 images.
Status: not trained at full size here.
Weights: the official release's, CC BY-NC-SA 4.0: not for commercial use.
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
