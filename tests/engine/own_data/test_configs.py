"""Own data in every shipped config and in one of each family of heads: data sets, heads, evaluators."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmres2net.data.check.before import evaluator_faults, head_faults
from mmres2net.data.layout import PARTS, datasets_of
from mmres2net.engine.build import build_model
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from mmres2net.engine.own_data.fit import use_own_data
from mmres2net.errors import UserError
from tests.configs.pairs import CONFIGS
from tests.engine.own_data.samples import own_data, own_data_for

# A config of each family, and the channels of its classifying layers for three classes.
LIBRARY: dict[str, dict[str, int]] = {
    'mmdet::retinanet_r50_fpn_1x_coco': {'bbox_head.retina_cls': 27},
    'mmdet::faster-rcnn_r50_fpn_1x_voc0712': {'roi_head.bbox_head.fc_cls': 4, 'rpn_head.rpn_cls': 3},
    'mmdet::cascade-mask-rcnn_r50_fpn_1x_coco': {
        **{f'roi_head.bbox_head.{i}.fc_cls': 4 for i in range(3)},
        **{f'roi_head.mask_head.{i}.conv_logits': 3 for i in range(3)},
    },
    'mmdet::ms-rcnn_r50-caffe_fpn_1x_coco': {'roi_head.mask_iou_head.fc_mask_iou': 3},
    'mmdet::yolov3_d53_8xb8-320-273e_coco': {'bbox_head.convs_pred.0': 24},
    'mmdet::yolox_tiny_8xb8-300e_coco': {'bbox_head.multi_level_conv_cls.0': 3},
    'mmdet::rtmdet-ins_tiny_8xb32-300e_coco': {'bbox_head.rtm_cls.0': 3},
    'mmdet::ssd300_coco': {'bbox_head.cls_convs.0.0': 16}, 'mmdet::detr_r50_8xb2-150e_coco': {'bbox_head.fc_cls': 4},
    'mmdet::dino-4scale_r50_8xb2-12e_coco': {'bbox_head.cls_branches.6': 3},
    'mmdet::mask2former_r50_8xb2-lsj-50e_coco': {'panoptic_head.cls_embed': 4},
    'mmdet::point-rend_r50-caffe_fpn_ms-1x_coco': {'roi_head.point_head.fc_logits': 3},
    'mmdet::mask-rcnn_r50_fpn_seesaw-loss_sample1e-3-ms-2x_lvis-v1': {'roi_head.bbox_head.fc_cls': 5},
    'mmseg::pspnet_r50-d8_4xb2-40k_cityscapes-512x1024': {'decode_head.conv_seg': 3, 'auxiliary_head.conv_seg': 3},
    'mmseg::ocrnet_hr18_4xb4-20k_voc12aug-512x512': {'decode_head.0.conv_seg': 3, 'decode_head.1.conv_seg': 3},
    'mmseg::bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024': {f'auxiliary_head.{i}.conv_seg': 3 for i in range(4)},
    'mmseg::ddrnet_23_in1k-pre_2xb6-120k_cityscapes-1024x1024': {'decode_head.conv_seg': 3},
    'mmseg::knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512': {'decode_head.kernel_generate_head.conv_seg': 3},
    'mmseg::mask2former_r50_8xb2-160k_ade20k-512x512': {'decode_head.cls_embed': 4},
    'mmpretrain::vgg16_8xb32_in1k': {'backbone.classifier.6': 3},
    'mmpretrain::resnet50_8xb32-mixup_in1k': {'head.fc': 3}, 'mmpretrain::resnet18_8xb16_cifar10': {'head.fc': 3},
}  # fmt: skip
OTHER_TASKS = (
    'mmdet::panoptic-fpn_r50_fpn_1x_coco', 'mmdet::htc_r50_fpn_1x_coco', 'mmdet::rpn_r50_fpn_1x_coco',
    'mmdet::soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco', 'mmpretrain::vgg16_8xb16_voc',
    'mmdet::mask2former_r50_8xb2-lsj-50e_coco-panoptic', 'mmdet::lad_r50-paa-r101_fpn_2xb8_coco_1x',
    'mmdet::glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco',
    'mmpretrain::mae_vit-base-p16_8xb512-amp-coslr-300e_in1k',
)  # fmt: skip


def check_parts(cfg: Config, before: Config, classes: tuple[str, ...]) -> None:
    assert head_faults(cfg.model, classes) == []
    for part in PARTS:
        for dataset, old in zip(datasets_of(cfg, part), datasets_of(before, part), strict=False):
            assert (dataset['data_root'], tuple(dataset['metainfo']['classes'])) == ('/data/images', classes)
            assert [step['type'] for step in dataset['pipeline']][-1] == old['pipeline'][-1]['type']
            assert dataset['ann_file'].startswith(f'/data/{"train" if part == "train" else "val"}')
        assert [*evaluator_faults(cfg, part)] == []


@pytest.mark.parametrize('name', CONFIGS)
def test_every_shipped_config_takes_own_data(name: str) -> None:
    cfg = load_config(name)
    before, data = copy.deepcopy(cfg.to_dict()), own_data_for(cfg)
    changed, lines = use_own_data(cfg, data)
    assert (cfg.to_dict(), len(lines) > 2) == (before, True)
    check_parts(changed, cfg, data.classes)
    assert pickle.loads(pickle.dumps(data)) == data  # for other processes
    assert Config.fromstring(changed.pretty_text, '.py').model == changed.model  # it can be written


def layers(model: Any) -> dict[str, int]:
    return {name: module.weight.shape[0] for name, module in model.named_modules() if hasattr(module, 'weight')}


@pytest.mark.parametrize('name', LIBRARY)
def test_layers_that_classify_have_the_classes(name: str) -> None:
    cfg = load_config(name)
    data = own_data_for(cfg)
    changed, _ = use_own_data(cfg, data)
    check_parts(changed, cfg, data.classes)
    changed = single_process_norms(without_weights(changed)[0])[0]
    with torch.device('cpu' if 'mmpretrain' in name else 'meta'):
        found = layers(build_model(changed))
    assert {layer: found.get(layer) for layer in LIBRARY[name]} == LIBRARY[name]


@pytest.mark.parametrize('name', OTHER_TASKS)
def test_configs_for_other_kinds_of_annotations_are_refused(name: str) -> None:
    cfg, data = load_config(name), own_data('classification' if 'mmpretrain' in name else 'detection')
    with pytest.raises(UserError, match=Path(name.partition('::')[2]).stem):
        use_own_data(cfg, data)


def test_instances_train_a_detector_of_boxes_and_one_of_masks() -> None:
    for name, metric in {'faster_rcnn_r2n50': ['bbox'], 'mask_rcnn_r2n50': ['bbox', 'segm']}.items():
        cfg, _ = use_own_data(load_config(name), own_data('instances', test=True))
        assert (cfg.val_evaluator.metric, cfg.val_evaluator.ann_file) == (metric, '/data/val.json')
        assert (cfg.test_evaluator.ann_file, cfg.test_dataloader.dataset.ann_file) == ('/data/test.json',) * 2
        assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'


def test_a_classifier_counts_only_the_hits_that_can_miss() -> None:
    for count, topk in {2: (1,), 5: (1,), 6: (1, 5)}.items():
        cfg, _ = use_own_data(load_config('imagenet/res2net50_26w_4s'), own_data('classification', count))
        assert cfg.val_evaluator.topk == cfg.model.head.topk == topk
        assert cfg.model.data_preprocessor.num_classes == count


def test_what_belongs_to_the_classes_of_the_old_data_set_is_gone() -> None:
    cfg, _ = use_own_data(load_config('mmdet::mask2former_r50_8xb2-lsj-50e_coco'), own_data('instances'))
    assert cfg.model.panoptic_head.loss_cls.class_weight == [1.0] * 3 + [0.1]
    ddrnet = 'mmseg::ddrnet_23_in1k-pre_2xb6-120k_cityscapes-1024x1024'
    cfg, _ = use_own_data(load_config(ddrnet), own_data('segmentation'))
    assert {loss.class_weight for loss in cfg.model.decode_head.loss_decode} == {None}
    cfg, _ = use_own_data(load_config('mmseg::pspnet_r50-d8_4xb4-80k_ade20k-512x512'), own_data('segmentation'))
    assert 'reduce_zero_label' not in f'{cfg.train_dataloader} {cfg.test_dataloader} {cfg.tta_pipeline}'
    cfg, _ = use_own_data(load_config('demo/faster_rcnn_r2n50'), own_data('detection'))
    assert not cfg.get('embedded_data')
