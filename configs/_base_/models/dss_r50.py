"""DSS (Hou et al. 2017) on ResNet-50: side outputs of the stem and of the four stages, the last at stride 16, dilated.

mmres2net/saliency/dss.py says which form this is. Norms are frozen, as in the public ResNet-101 form. The input is
normalized as the backbone's weights expect it (the public form has BGR with Caffe's means, for Caffe's weights).
"""

norm_cfg = dict(type='BN', requires_grad=False)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
    ),
    backbone=dict(
        type='mmres2net.WithStem',
        backbone=dict(
            type='mmseg.ResNet',
            depth=50,
            out_indices=(0, 1, 2, 3),
            strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            norm_cfg=norm_cfg,
            norm_eval=True,
            style='pytorch',
            zero_init_residual=True,
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
        ),
    ),
    decode_head=dict(type='mmres2net.DSSHead'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
