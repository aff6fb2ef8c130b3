"""One small model of each OpenMMLab library with a Res2Net backbone, as configs."""

from typing import Any

BACKBONE = dict(type='mmres2net.Res2Net', arch='res2net50_26w_4s', frozen_stages=1, norm_eval=True)
MODELS: dict[str, dict[str, Any]] = {
    'mmpretrain': dict(
        type='ImageClassifier',
        backbone=dict(BACKBONE, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=2048, loss=dict(type='CrossEntropyLoss')),
    ),
    'mmseg': dict(
        type='EncoderDecoder',
        backbone=dict(BACKBONE, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
        decode_head=dict(
            type='FCNHead', in_channels=2048, in_index=3, channels=8, num_convs=1, concat_input=False, num_classes=4
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    ),
    'mmdet': dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(BACKBONE),
        neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1,
            anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]),
        ),
        train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)),
        test_cfg=dict(nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
    ),
}  # fmt: skip
