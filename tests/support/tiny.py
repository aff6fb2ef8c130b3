"""Models small enough to be exported in a second, with weights by which they detect something."""

from pathlib import Path

import torch
from mmengine.config import Config

from mmres2net.engine.source import build

CLASSES = ('disc', 'square', 'triangle')
BACKBONE = dict(
    type='mmres2net.Res2Net', depths=(1, 2, 1, 1), base_width=14, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN')
)
PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
CHANNELS = 16
ROI_LAYER = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
COMMON = dict(custom_imports=dict(imports=['mmres2net.models'], allow_failed_imports=False))


def coder(*stds: float) -> dict:
    return dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.1, 0.0, 0.0], target_stds=list(stds))


def loader(pack: str, **kwargs) -> dict:
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', **kwargs), dict(type=pack)]
    return dict(dataset=dict(type='None', metainfo=dict(classes=CLASSES), pipeline=steps))


def heads(strides: list[int], channels: int, *, agnostic: bool, masks: bool) -> dict:
    extractor = dict(type='SingleRoIExtractor', roi_layer=ROI_LAYER, out_channels=channels, featmap_strides=strides)
    roi = dict(type='StandardRoIHead', bbox_roi_extractor=dict(extractor, finest_scale=16))
    roi['bbox_head'] = dict(
        type='Shared2FCBBoxHead', in_channels=channels, fc_out_channels=32, roi_feat_size=7, num_classes=len(CLASSES),
        bbox_coder=coder(0.1, 0.1, 0.2, 0.2), reg_class_agnostic=agnostic,
    )  # fmt: skip
    if masks:
        roi['mask_roi_extractor'] = dict(extractor, finest_scale=16, roi_layer=dict(ROI_LAYER, output_size=14))
        roi['mask_head'] = dict(
            type='FCNMaskHead', num_convs=1, in_channels=channels, conv_out_channels=8, num_classes=len(CLASSES),
            class_agnostic=agnostic,
        )  # fmt: skip
    return roi


def rpn(strides: list[int], channels: int) -> dict:
    anchors = dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=strides)
    return dict(
        type='RPNHead', in_channels=channels, feat_channels=channels, anchor_generator=anchors,
        bbox_coder=coder(1.0, 1.0, 1.0, 1.0),
    )  # fmt: skip


def settings(masks: bool) -> dict:
    nms = dict(type='nms', iou_threshold=0.6)
    rcnn = dict(score_thr=0.05, nms=nms, max_per_img=20, **(dict(mask_thr_binary=0.5) if masks else {}))
    return dict(rpn=dict(nms_pre=200, max_per_img=60, nms=nms, min_bbox_size=0), rcnn=rcnn)


def detector(*, masks: bool = True, agnostic: bool = False) -> dict:
    model = dict(
        type='MaskRCNN' if masks else 'FasterRCNN',
        data_preprocessor=dict(type='DetDataPreprocessor', **PIXELS, pad_size_divisor=32), backbone=BACKBONE,
        neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=CHANNELS, num_outs=5),
        rpn_head=rpn([4, 8, 16, 32, 64], CHANNELS),
        roi_head=heads([4, 8, 16, 32], CHANNELS, agnostic=agnostic, masks=masks), train_cfg=None,
        test_cfg=settings(masks),
    )  # fmt: skip
    data = loader('PackDetInputs', scale=(96, 80), keep_ratio=True)
    return dict(COMMON, default_scope='mmdet', model=model, test_dataloader=data)


def c4_detector() -> dict:
    """A detector without a feature pyramid, whose head is a stage that all regions share."""
    config = detector(masks=False)
    model, row = config['model'], dict(depths=(1, 2, 1, 1), base_width=14, norm_cfg=dict(type='BN'))
    del model['neck']
    model['backbone'] = dict(BACKBONE, out_indices=(2,))
    model['rpn_head'] = rpn([16], 1024)
    roi = heads([16], 1024, agnostic=False, masks=False)
    roi['shared_head'] = dict(type='mmres2net.Res2LayerHead', stage=3, stride=2, **row)
    roi['bbox_head'] = dict(
        type='BBoxHead', with_avg_pool=True, roi_feat_size=4, in_channels=2048, num_classes=len(CLASSES),
        bbox_coder=coder(0.1, 0.1, 0.2, 0.2),
    )  # fmt: skip
    model['roi_head'] = roi
    return config


def segmentor() -> dict:
    """A DeepLabv3+ whose test images have 16 k + 1 pixels."""
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='mmres2net.AlignedSegDataPreProcessor', **PIXELS, size=(97, 97)), backbone=BACKBONE,
        decode_head=dict(
            type='DepthwiseSeparableASPPHead', in_channels=2048, in_index=3, channels=8, dilations=(1, 2, 3),
            c1_in_channels=256, c1_channels=4, num_classes=len(CLASSES), norm_cfg=dict(type='BN'), align_corners=True,
        ),
        train_cfg=None, test_cfg=dict(mode='whole'),
    )  # fmt: skip
    data = loader('PackSegInputs', scale=(96, 96), keep_ratio=True)
    return dict(COMMON, default_scope='mmseg', model=model, test_dataloader=data)


def write_model(folder: Path, name: str, config: dict) -> tuple[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    cfg = Config(config)
    cfg.dump(folder / f'{name}.py')
    torch.manual_seed(0)
    model = build(cfg, random=True)
    enliven(model)
    torch.save({'state_dict': model.state_dict()}, folder / f'{name}.pth')
    return str(folder / f'{name}.py'), str(folder / f'{name}.pth')


def enliven(model: torch.nn.Module) -> None:
    """Give norms statistics and the last layers weights by which scores differ."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.0)
                module.bias.normal_(0, 0.1)
        for name, parameter in model.named_parameters():
            if name.endswith(('fc_cls.weight', 'rpn_cls.weight', 'conv_logits.weight', 'conv_seg.weight')):
                parameter.normal_(0, 1.0)
            elif name.endswith(('fc_reg.weight', 'rpn_reg.weight')):
                parameter.normal_(0, 0.05)
