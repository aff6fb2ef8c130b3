"""DeepLabv3+ (Chen et al. 2018) on ResNet-50 at output stride 16.

The last stage has stride 1 and the dilations 2, 4, 8: the multi-grid (1, 2, 4) at rate 2. Pyramid pooling at rates 6,
12, 18 and the decoder have 256 channels as in the paper, the low-level features 48.

Corners are aligned, so images need 16 k + 1 pixels. Training crops are padded to 513 x 513, test images to the next
such size, at least to 513. At other sizes the last feature lies before the last pixel, and the prediction is stretched
by up to 15 pixels.
"""

norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='mmres2net.AlignedSegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(513, 513),
    ),
    backbone=dict(
        type='mmseg.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        multi_grid=(2, 4, 8),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        zero_init_residual=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_channels=2048,
        in_index=3,
        channels=256,
        dilations=(1, 6, 12, 18),
        c1_in_channels=256,
        c1_channels=48,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=True,
        # The loss is the mean over the pixels that have a class, as in the other implementations.
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
