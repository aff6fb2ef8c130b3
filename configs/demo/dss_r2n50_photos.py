"""DSS Res2Net50-26w4s on any small set of photographs, from random weights: another backbone and nothing else.

The folder has images/*.jpg, masks/*.png and the lists train.txt and test.txt. It shows that the whole chain learns, in
minutes on two CPU cores; its figures rank no backbone.

Family: demo.
Target: none.
Schedule: 24 epochs x 120 images / 4 a step = 30 steps an epoch, for a list of that length.
Status: trained here on 120 images of ECSSD: maxF 0.671, MAE 0.213 on 60 others; a Gaussian in the middle has 0.587.
Run: tools/train.py configs/demo/dss_r2n50_photos.py --data DIR
"""

_base_ = 'dss_r50_photos.py'

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
