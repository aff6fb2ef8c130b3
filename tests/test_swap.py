"""The swap of a backbone: what is carried over, changed and refused, and that swapped models run."""

import copy
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from mmres2net.data.layout import walk
from mmres2net.engine.config import single_process_norms
from mmres2net.errors import UserError
from mmres2net.models import Res2LayerHead, Res2Net
from mmres2net.paths import find_config
from mmres2net.registry import MODELS
from mmres2net.swap import explain_swap, swap_backbone

ARCH = 'res2net50_26w_4s'
V1B = 'res2net50_v1b_26w_4s'
RGB = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'bgr_to_rgb': True}
CAFFE = {'mean': [103.53, 116.28, 123.675], 'std': [1.0, 1.0, 1.0], 'bgr_to_rgb': False}


def openmmlab(name: str) -> Config:
    return Config.fromfile(find_config(name))


def config(library: str = 'mmdet', pre: dict | None = None, **backbone: Any) -> Config:
    """The least that a swap needs: a ResNet-50 with pre-trained weights, and its input."""
    old = {'type': 'ResNet', 'depth': 50, 'init_cfg': {'type': 'Pretrained', 'checkpoint': 'torchvision://resnet50'}}
    model = {'backbone': {**old, **backbone}, 'data_preprocessor': dict(RGB if pre is None else pre)}
    return Config({'default_scope': library, 'model': model})


def swapped(*args: Any, arch: str = ARCH, **kwargs: Any) -> Config:
    return swap_backbone(config(*args, **kwargs), arch)


def refusal(cfg: Config, arch: str = ARCH, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        swap_backbone(cfg, arch, **options)
    return str(caught.value)


def batch(library: str) -> dict:
    if library == 'mmdet':
        from tests.support.detection import detection_sample

        boxes = torch.tensor([[8.0, 8.0, 60.0, 60.0], [30.0, 20.0, 90.0, 80.0]])
        sample = detection_sample(boxes, torch.tensor([0, 1]), (96, 96))
    elif library == 'mmseg':
        from mmseg.structures import SegDataSample

        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (96, 96))
        sample = SegDataSample(metainfo={**shapes, 'img_padding_size': (0, 0, 0, 0)})
        sample.gt_sem_seg = PixelData(data=torch.arange(96).expand(1, 96, 96) // 48)
    else:
        from mmpretrain.structures import DataSample

        sample = DataSample().set_gt_label(1)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    return {'inputs': list(images), 'data_samples': [sample, sample.clone()]}


LATE = (False, True, True, True)
DILATED = {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4), 'contract_dilation': True}
GRID = {'dilations': (1, 1, 1, 2), 'multi_grid': (1, 2, 4), 'contract_dilation': True}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': (ARCH, {'frozen_stages': 1, 'norm_eval': True}),
    'mmdet::cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_1x_coco.py': (V1B, {'frozen_stages': 1}),
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py': (ARCH, {'out_indices': (2,)}),
    'mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py': ('res2net50_14w_8s', {'stage_with_dcn': LATE}),
    'mmdet::detr/detr_r50_8xb2-150e_coco.py': (ARCH, {'out_indices': (3,), 'norm_eval': True}),
    'mmdet::gcnet/mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco.py': (ARCH, {'norm_eval': False}),
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py': (ARCH, DILATED),
    'mmseg::deeplabv3plus/deeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024.py': (ARCH, GRID),
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': (ARCH, {'out_indices': (3,), 'norm_eval': False}),
    'mmpretrain::seresnet/seresnet50_8xb32_in1k.py': ('se_res2net50_26w_4s', {'out_indices': (3,)}),
}


def build(cfg: Config) -> torch.nn.Module:
    init_default_scope(cfg.default_scope)
    cfg, _ = single_process_norms(cfg)
    for _, node in walk(cfg.model, 'model'):  # a few regions show the same as thousands
        few = {'max_per_img': 8, 'nms_pre': 32, 'num': 8}
        node.update({key: value for key, value in few.items() if key in node})
    if cfg.default_scope == 'mmpretrain':
        cfg.model.data_preprocessor = cfg.data_preprocessor  # MMEngine's Runner puts it there
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (96, 96)  # else every image is padded to a city's
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', CONFIGS)
def test_openmmlab_config_trains_and_predicts(name: str) -> None:
    arch, wanted = CONFIGS[name]
    cfg = swap_backbone(openmmlab(name), arch)
    assert {key: cfg.model.backbone[key] for key in wanted} == wanted
    model = build(cfg)
    backbone = model.backbone
    assert type(backbone) is Res2Net
    data = batch(cfg.default_scope)
    before = {key: value.clone() for key, value in backbone.named_parameters()}
    model.train()
    losses = model.train_step(copy.deepcopy(data), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3)))
    assert torch.isfinite(losses['loss'])
    moved = {key for key, value in backbone.named_parameters() if not torch.equal(value, before[key])}
    last = f'layer{max(backbone.out_indices) + 1}'
    assert any(key.startswith(last) for key in moved)
    frozen = cfg.model.backbone.get('frozen_stages', -1)
    assert any(key.startswith('conv1') for key in moved) == (frozen < 0)
    assert any(key.startswith('layer1') for key in moved) == (frozen < 1)
    sample, _ = model.eval().test_step(data)
    if cfg.default_scope == 'mmdet':
        assert torch.isfinite(sample.pred_instances.scores).all()
    elif cfg.default_scope == 'mmseg':
        assert sample.pred_sem_seg.data.shape == (1, 96, 96)
    else:
        assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-4)


def test_shared_head_of_a_detector_without_pyramid() -> None:
    cfg = openmmlab('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py')
    old = cfg.model.roi_head.shared_head.to_dict()
    cfg = swap_backbone(cfg, ARCH)
    head = cfg.model.roi_head.shared_head
    assert (head.type, head.arch, head.init_cfg) == ('mmres2net.Res2LayerHead', ARCH, cfg.model.backbone.init_cfg)
    kept = ('stage', 'stride', 'dilation', 'norm_cfg', 'norm_eval')
    assert {key: head[key] for key in kept} == {key: old[key] for key in kept}
    assert not {'depth', 'style'} & set(head)
    assert cfg.model.backbone.strides == (1, 2, 2, 2)
    assert cfg.model.backbone.init_cfg.checkpoint == ARCH
    assert isinstance(MODELS.build(head), Res2LayerHead)
    again = swap_backbone(cfg, 'res2net101_26w_4s')
    assert again.model.roi_head.shared_head.arch == 'res2net101_26w_4s'
    assert again.model.roi_head.shared_head.init_cfg.checkpoint == 'res2net101_26w_4s'
    cfg.model.roi_head.shared_head = {'type': 'ResLayer', 'depth': 50, 'foo': 1}
    assert 'model.roi_head.shared_head has foo' in refusal(cfg, 'res2net101_26w_4s')


DCN = {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
PLUGIN = {'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'position': 'after_conv3'}


def test_plugins_start_random_beside_published_weights(tmp_path: Path) -> None:
    """Loading is strict, so what the published file has no weights of is named; without plugins nothing is."""
    new = swapped(plugins=[{**PLUGIN, 'stages': (False, False, True, False)}])
    init_cfg = new.model.backbone.init_cfg
    assert init_cfg == dict(type='mmres2net.Pretrained', checkpoint=ARCH, random_ok=['*.after_conv?.*'])
    assert 'random_ok' not in swapped().model.backbone.init_cfg
    published = Res2Net(ARCH).state_dict()
    torch.save(published, tmp_path / 'published.pth')
    init_default_scope('mmdet')
    backbone = MODELS.build({**new.model.backbone, 'init_cfg': {**init_cfg, 'checkpoint': f'{tmp_path}/published.pth'}})
    backbone.init_weights()
    state = backbone.state_dict()
    assert all(torch.equal(state[name], value) for name, value in published.items())
    assert {name.split('.')[0] for name in state.keys() - published.keys()} == {'layer3'}


SAME: list[dict] = [
    {'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2)}, {'frozen_stages': 0},
    {'norm_cfg': {'type': 'SyncBN', 'eps': 1e-3}},
    {'norm_eval': False, 'with_cp': True, 'zero_init_residual': False, 'drop_path_rate': 0.1},
    {'multi_grid': (1, 2, 4), 'contract_dilation': True}, {'dcn': DCN, 'stage_with_dcn': LATE}, {'plugins': [PLUGIN]},
]  # fmt: skip
DCN_OFF = ({'dcn': DCN}, {'dcn': DCN, 'stage_with_dcn': (False,) * 4}, {'stage_with_dcn': (False,) * 4})


@pytest.mark.parametrize(('old', 'new'), [
    *zip(SAME, SAME, strict=True), *((off, {'dcn': None, 'stage_with_dcn': None}) for off in DCN_OFF),
    ({'out_indices': [1, 3]}, {'out_indices': (1, 3)}),
    ({'frozen_stages': 4, 'out_indices': (1,)}, {'frozen_stages': 2}),  # stages 3 and 4 are not built
    (
        {'num_stages': 3, 'out_indices': (2,), 'strides': (1, 2, 1), 'dilations': (1, 1, 2), 'dcn': DCN}
        | {'stage_with_dcn': (False, False, True), 'plugins': [{**PLUGIN, 'stages': (True, False, True)}]},
        {'strides': (1, 2, 1, 2), 'dilations': (1, 1, 2, 1), 'stage_with_dcn': (False, False, True, False)}
        | {'plugins': [{**PLUGIN, 'stages': (True, False, True, False)}]},
    ),
])  # fmt: skip
def test_carried_over(old: dict, new: dict) -> None:
    backbone = swapped(**old).model.backbone.to_dict()
    assert {key: backbone.get(key) for key in new} == new


def test_defaults_are_those_of_the_libraries() -> None:
    for name in ('mmdet', 'mmseg', 'mmpretrain'):
        library = importlib.import_module(f'{name}.models.backbones')
        defaults = inspect.signature(library.ResNet).parameters
        backbone = swapped(name).model.backbone
        for key in ('out_indices', 'norm_eval', 'zero_init_residual'):
            assert backbone[key] == defaults[key].default, (name, key)
        cfg = config('other')
        cfg.model['_scope_'] = name  # of an inherited model
        assert swap_backbone(cfg, ARCH).model.backbone == backbone
        kinds = (library.ResNet, f'{name}.ResNet', f'{name}.models.backbones.resnet.ResNet')
        for scope, kind in ((name, 'ResNeXt'), *(('', kind) for kind in kinds), *(('other', kind) for kind in kinds)):
            assert swapped(scope, type=kind).model.backbone == backbone


PURE = """
from mmcv.transforms import LoadImageFromFile
from mmdet.models.backbones import ResNet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmengine.model import PretrainedInit
from torch.nn import BatchNorm2d

norm = dict(type=BatchNorm2d, requires_grad=False)
model = dict(
    backbone=dict(type=ResNet, depth=50, frozen_stages=1, norm_cfg=norm,
                  init_cfg=dict(type=PretrainedInit, checkpoint='torchvision://resnet50')),
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[1.0], std=[2.0], bgr_to_rgb=False),
    roi_head=dict(shared_head=dict(type=ResLayer, depth=50, norm_cfg=norm)),
)
train_dataloader = dict(dataset=dict(pipeline=[dict(type=LoadImageFromFile)]))
"""


def test_pure_python_config_is_swapped_as_one_of_names(tmp_path: Path) -> None:
    """Types are classes there, and there is no default scope."""
    (tmp_path / 'pure.py').write_text(PURE)
    cfg = Config.fromfile(tmp_path / 'pure.py')
    before = cfg.to_dict()
    new = swap_backbone(cfg, ARCH)
    assert cfg.to_dict() == before
    backbone = new.model.backbone
    assert (backbone.init_cfg.checkpoint, backbone.frozen_stages, backbone.norm_eval) == (ARCH, 1, True)
    assert new.model.roi_head.shared_head.type == 'mmres2net.Res2LayerHead'
    assert new.model.data_preprocessor.mean == RGB['mean']
    assert new.model.data_preprocessor.bgr_to_rgb is True
    new.dump(tmp_path / 'new.py')
    built = MODELS.build({**Config.fromfile(tmp_path / 'new.py').model.backbone, 'init_cfg': None})
    assert type(built) is Res2Net
    assert not built.bn1.weight.requires_grad


def test_what_described_the_old_network_goes_and_is_named() -> None:
    old = {'style': 'caffe', 'deep_stem': True, 'avg_down': True, 'stem_channels': 32, 'groups': 32, 'base_width': 4}
    cfg, lines = explain_swap(config(**old), ARCH)
    (line,) = (line for line in explain_swap(config(), V1B)[1] if 'starts from' in line)
    assert all(text in line for text in ('3cf99910.pth', 'CC BY-NC-SA 4.0', 'torchvision://resnet50'))
    wanted = {'type': 'mmres2net.Res2Net', 'arch': ARCH, 'out_indices': (0, 1, 2, 3), 'norm_eval': True}
    start = {'type': 'mmres2net.Pretrained', 'checkpoint': ARCH}
    assert cfg.model.backbone.to_dict() == {**wanted, 'zero_init_residual': True, 'init_cfg': start}
    (line,) = (line for line in lines if ' drops ' in line)
    assert [key for key in old if f'{key}=' not in line] == []


def test_between_our_own() -> None:
    cfg = swapped(frozen_stages=2)
    cfg.model.backbone.stage_pool = 'maskrcnn'
    new = swap_backbone(cfg, 'res2net101d').model.backbone
    assert (new.arch, new.stage_pool, new.frozen_stages) == ('res2net101_v1b_26w_4s', 'maskrcnn', 2)
    assert new.init_cfg.checkpoint == 'res2net101_v1b_26w_4s'
    assert f'already {ARCH}' in refusal(cfg, 'res2net50')
    tree = Config(config().to_dict())
    tree.model.backbone = {'type': 'mmres2net.Res2NetDLA', 'arch': 'dla60', 'out_indices': (3,)}
    assert swap_backbone(tree, 'dla60_res2net').model.backbone.type == 'mmres2net.Res2NetDLA'
    assert '128, 256, 512, 1024' in refusal(tree)


@pytest.mark.parametrize('pretrained', [True, False])
def test_caffe_normalization_becomes_rgb(pretrained: bool) -> None:
    pre = {'type': 'DetDataPreprocessor', **CAFFE, 'pad_size_divisor': 32, 'rgb_to_bgr': True}
    cfg, lines = explain_swap(config(pre=pre), ARCH, pretrained=pretrained)
    assert cfg.model.data_preprocessor.to_dict() == {**pre, **RGB, 'rgb_to_bgr': False}
    assert 'model.data_preprocessor.mean [103.53, 116.28, 123.675] -> [123.675, 116.28, 103.53]' in lines
    assert not [line for line in explain_swap(config(), ARCH)[1] if 'data_preprocessor' in line]  # right already


def test_every_preprocessor_changes() -> None:
    cfg = openmmlab('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.01-coco.py')
    new = swap_backbone(cfg, ARCH)
    assert new.model.detector.backbone.arch == ARCH
    for node in (new.model.detector.data_preprocessor, new.model.data_preprocessor.data_preprocessor):
        assert {key: node[key] for key in RGB} == RGB
    top = Config({**config('mmpretrain').to_dict(), 'data_preprocessor': {'num_classes': 2}})
    del top.model['data_preprocessor']
    wanted = {'num_classes': 2, 'mean': RGB['mean'], 'std': RGB['std'], 'to_rgb': True}
    assert swap_backbone(top, ARCH).data_preprocessor == wanted


def test_images_read_as_rgb_are_not_flipped_and_those_of_other_channels_keep_their_statistics() -> None:
    cfg = config(pre=CAFFE)
    load = {'type': 'LoadImageFromFile', 'channel_order': 'rgb'}
    cfg.train_dataloader = {'dataset': {'pipeline': [load]}}
    assert swap_backbone(cfg, ARCH).model.data_preprocessor.bgr_to_rgb is False
    cfg.test_dataloader = {'dataset': {'pipeline': [{'type': 'LoadImageFromFile'}]}}
    assert 'test_dataloader.dataset.pipeline.0' in refusal(cfg)
    pre = {'mean': [1.0], 'std': [2.0]}
    cfg = swap_backbone(config(pre=pre, in_channels=1), ARCH, pretrained=False)
    assert cfg.model.data_preprocessor == pre
    assert cfg.model.backbone.in_channels == 1
    assert 'in_channels=1' in refusal(config(pre=pre, in_channels=1))
    assert 'base_channels=32' in refusal(config(base_channels=32))
    assert swap_backbone(config(base_channels=32), ARCH, pretrained=False).model.backbone.base_channels == 32


def test_normalization_that_the_swap_cannot_set() -> None:
    bare, old_style, distilled = config(), config(), config(pre=CAFFE)
    del bare.model['data_preprocessor']
    old_style.test_dataloader = {'dataset': {'pipeline': [{'type': 'mmdet.Normalize', 'mean': [0], 'std': [1]}]}}
    distilled.model.teacher_config = 'teacher.py'
    assert 'data_preprocessor' in refusal(bare)
    assert 'test_dataloader.dataset.pipeline.0' in refusal(old_style)
    assert 'model.teacher_config=teacher.py' in refusal(distilled)


def test_old_checkpoints_go_and_a_start_is_random_only_where_asked() -> None:
    name = 'res2net50_18w_4s'  # without published weights
    assert '--from-scratch' in refusal(config(), name)
    for cfg, options in ((config(), {'pretrained': False}), (config(init_cfg=None), {})):
        assert 'init_cfg' not in swap_backbone(cfg, name, **options).model.backbone
    cfg = config('mmseg', init_cfg=None)
    cfg.load_from, cfg.resume = 'detector.pth', True
    cfg.model.pretrained = 'open-mmlab://resnet50_v1c'
    cfg.model.init_cfg = {'type': 'Pretrained', 'checkpoint': 'segmentor.pth'}
    new = swap_backbone(cfg, ARCH)
    assert (new.load_from, new.resume, new.model.pretrained, new.model.init_cfg) == (None, False, None, None)
    assert new.model.backbone.init_cfg.checkpoint == ARCH


def test_layers_that_the_weights_do_not_know() -> None:
    norm, conv = {'norm_cfg': {'type': 'GN', 'num_groups': 32}}, {'conv_cfg': {'type': 'ConvWS'}}
    assert "norm_cfg.type='GN'" in refusal(config(**norm))
    assert 'num_groups' in refusal(config(**norm), pretrained=False)
    assert "conv_cfg.type='ConvWS'" in refusal(config(**conv))
    assert swap_backbone(config(**conv), ARCH, pretrained=False).model.backbone.conv_cfg.type == 'ConvWS'


def test_backbone_within_a_wrapper() -> None:
    """The salient objects' stem is handed out by a wrapper, whose backbone is the one to swap."""
    found = swap_backbone(Config.fromfile(find_config('dss_r50.py')), ARCH)
    wrapper = found.model.backbone.to_dict()
    expected = Config.fromfile(find_config('dss_r2n50.py')).model.backbone.to_dict()
    expected['backbone']['zero_init_residual'] = True  # as the ResNet had it
    assert wrapper == expected


REFUSED = {
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py': 'mmdet.SwinTransformer',
    'mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py': 'mmseg.HRNet',
    'mmdet::atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py': '64, 128, 256, 512',
    'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py': 'model.neck.rfp_backbone',
    'mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py': 'model.teacher_backbone',
    'mmdet::deepsort/deepsort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py': 'model.reid.backbone',
    'mmseg::icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py': 'mmseg.ICNet',
}


def test_refusals_of_openmmlab_configs_and_of_mistakes() -> None:
    for name, text in REFUSED.items():
        assert text in refusal(openmmlab(name)), name
    assert 'res2net50_26w_4s' in refusal(config(), 'res2net5_26w_4s')
    assert "'backbone'" in refusal(Config({'model': {'type': 'X'}}))
    assert 'mmrotate.ResNet' in refusal(config('mmrotate'))
    assert "sac={'type': 'SAC'}" in refusal(config(sac={'type': 'SAC'}))
    for arch, channels in {'res2net_dla60_4s': '128, 256, 512, 1024', 'res2next29_6c24w4s': '256, 512, 1024;'}.items():
        assert f'returns {channels}' in refusal(config(), arch)
    absent = config(plugins=[{'cfg': {'type': 'Absent'}, 'position': 'after_conv3'}])
    assert 'model.backbone (mmdet.ResNet of depth 50)' in refusal(absent)


@pytest.mark.parametrize('name', [*CONFIGS][3::4])
def test_written_config_reads_the_same_and_the_given_one_is_unchanged(name: str, tmp_path: Path) -> None:
    cfg = openmmlab(name)
    before, text = copy.deepcopy(cfg.to_dict()), cfg.pretty_text
    new = swap_backbone(cfg, ARCH)
    new.dump(tmp_path / 'new.py')
    assert Config.fromfile(tmp_path / 'new.py').to_dict() == new.to_dict()
    for _, node in walk(new.model.backbone, ''):
        node['type'] = 'changed'
    assert (cfg.to_dict(), cfg.pretty_text) == (before, text)
