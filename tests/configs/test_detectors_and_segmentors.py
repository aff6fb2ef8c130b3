"""Detectors and DeepLabv3+: each config builds, trains, predicts, and differs from its twin in the backbone alone."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmres2net.data.check import check_classes
from mmres2net.data.layout import point_at, walk
from mmres2net.engine.config import load_config, pretrained_of, single_process_norms, without_weights
from mmres2net.models import Res2LayerHead, Res2Net
from mmres2net.paths import config_dir, list_configs
from tests.support.realdata import data_root

CONFIGS = [name for name in list_configs() if re.match(r'(demo/)?(faster_rcnn|mask_rcnn|deeplabv3plus)_', name)]
TWIN = re.compile(r'r2n(50|101)(_v1b|_48w2s|_18w6s|_14w8s)?')
TWINS = [name for name in CONFIGS if TWIN.search(name)]
# One of each kind; the others differ in depth, width or schedule and are run by -m slow.
KINDS = [
    'deeplabv3plus_r2n50.py',
    'demo/deeplabv3plus_r2n50.py',
    'demo/faster_rcnn_r2n50.py',
    'demo/mask_rcnn_r2n50.py',
    'faster_rcnn_r2n50.py',
    'faster_rcnn_r2n50_c4.py',
    'faster_rcnn_r2n50_c4_voc07.py',
    'faster_rcnn_r2n50_voc07.py',
    'mask_rcnn_r2n50.py',
    'mask_rcnn_r2n50_paper.py',
]
# What is the backbone: in a detector without a pyramid, the last stage is the head of the regions.
BACKBONE = ('backbone', 'roi_head.shared_head')
SMALL = (240, 180)  # pixels, in place of the recipe's size: the step is the same


def text_of(name: str) -> str:
    return (config_dir() / name).read_text()


def baseline_of(name: str) -> str:
    return TWIN.sub(r'r\1', name)


def test_there_are_configs_and_twins() -> None:
    assert set(KINDS) < set(CONFIGS)
    baselines = {baseline_of(name) for name in TWINS}
    assert baselines | set(TWINS) == set(CONFIGS)
    assert not baselines & set(TWINS)


def take(model: dict[str, Any], path: str) -> dict[str, Any]:
    """Take a part of a model's config out of it; an empty one where it has no such part."""
    *parents, last = path.split('.')
    for parent in parents:
        model = model.get(parent, {})
    return model.pop(last, {})


@pytest.mark.parametrize('name', TWINS)
def test_twin_differs_in_the_backbone_alone(name: str) -> None:
    ours, baseline = (load_config(n).to_dict() for n in (name, baseline_of(name)))
    for part in BACKBONE:
        mine, theirs = take(ours['model'], part), take(baseline['model'], part)
        assert bool(mine) == bool(theirs)
        stages = theirs.get('num_stages', 4)
        defaults = {
            'out_indices': (0, 1, 2, 3)[:stages],
            'strides': (1, 2, 2, 2)[:stages],
            'dilations': (1, 1, 1, 1)[:stages],
            'frozen_stages': -1,
            'norm_eval': False,
        }
        for key in (*defaults, 'norm_cfg', 'multi_grid', 'stage', 'stride', 'zero_init_residual'):
            assert mine.get(key, defaults.get(key)) == theirs.get(key, defaults.get(key)), key
        # The stride of a stage sits in the same convolution, which decides what the network computes.
        in_first = (mine.get('stage_pool') == 'maskrcnn', theirs.get('style') == 'caffe')
        assert in_first == (('_paper' in name,) * 2 if part == 'backbone' else (False, False))
    for helper in ('weights', 'shared'):  # variables of the files, which MMEngine keeps as keys
        for cfg in (ours, baseline):
            cfg.pop(helper, None)
    assert ours == baseline


@pytest.mark.parametrize('name', TWINS)
def test_twin_is_named_after_its_network(name: str) -> None:
    depth, variant = TWIN.search(name).groups()
    width = re.fullmatch(r'_(\d+)w(\d)s', variant or '') or re.fullmatch(r'_(\d+)w(\d)s', '_26w4s')
    arch = f'res2net{depth}{"_v1b" if variant == "_v1b" else ""}_{width[1]}w_{width[2]}s'
    backbone = load_config(name).model.backbone
    assert backbone.arch == arch
    assert load_config(baseline_of(name)).model.backbone.depth == int(depth)
    if not name.startswith('demo/'):
        (checkpoint,) = set(pretrained_of(load_config(name)).values())
        assert checkpoint == backbone.init_cfg.checkpoint
        assert checkpoint == arch


def schedule_of(name: str) -> str:
    return re.search(r'^Schedule: (.*)$', text_of(name), re.MULTILINE)[1]


@pytest.mark.parametrize('name', CONFIGS)
def test_schedule_fits_its_learning_rate(name: str) -> None:
    cfg = load_config(name)
    processes, rest = divmod(cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size)
    assert (processes, rest) == (
        1 if name.startswith('demo/') or 'c4_voc07' in name else 4 if 'deeplab' in name else 8,
        0,
    )
    by_epoch = cfg.train_cfg.get('type', 'EpochBasedTrainLoop') == 'EpochBasedTrainLoop'
    end = cfg.train_cfg.max_epochs if by_epoch else cfg.train_cfg.max_iters
    decays = [s for s in cfg.param_scheduler if s['type'] != 'LinearLR']
    assert [(s['by_epoch'], s['end']) for s in decays] == [(by_epoch, end)]
    assert all(milestone < end for milestone in decays[0].get('milestones', []))
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) == by_epoch
    assert cfg.log_processor.by_epoch == by_epoch
    assert by_epoch or cfg.train_dataloader.sampler.type == 'InfiniteSampler'


@pytest.mark.parametrize('name', CONFIGS)
def test_arithmetic_of_the_docstring(name: str) -> None:
    cfg = load_config(name)
    base = cfg.auto_scale_lr.base_batch_size
    numbers = [float(n.replace(',', '')) for n in re.findall(r'[\d,]*\d(?:\.\d+)?', schedule_of(name).split(';')[0])]
    if ' epochs x ' in schedule_of(name):
        epochs, images, batch, steps = numbers
        assert (epochs, batch) == (cfg.train_cfg.max_epochs, base)
        assert steps == math.ceil(images / batch)
    else:
        steps, batch, epochs, images = numbers
        assert (steps, batch) == (cfg.train_cfg.max_iters, base)
        assert epochs == round(steps * batch / images, 1)
    known = {'demo/deeplab': 400, 'demo/': 392, 'voc07': 5_011, 'deeplab': 10_582}
    assert images == next((n for word, n in known.items() if word in name), 117_266)


def test_coco_1x_schedule() -> None:
    cfg = load_config('faster_rcnn_r2n50.py')
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
    assert [t.scale for t in cfg.train_dataloader.dataset.pipeline if t.type == 'Resize'] == [(1333, 800)]


def steps_and_rates(name: str) -> tuple[int, float, list[int]]:
    cfg = load_config(name)
    return cfg.auto_scale_lr.base_batch_size, cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler[-1].get('milestones')


def test_schedules_of_the_other_recipes() -> None:
    assert steps_and_rates('faster_rcnn_r2n50_2x.py') == (16, 0.02, [16, 22])
    assert steps_and_rates('faster_rcnn_r2n50_c4_voc07.py') == (1, 0.001, [10])
    assert steps_and_rates('mask_rcnn_r2n50_paper.py') == (16, 0.02, [120_000, 160_000])
    assert steps_and_rates('deeplabv3plus_r2n50.py') == (16, 0.01, None)
    poly = load_config('deeplabv3plus_r2n50.py').param_scheduler[0]
    assert (poly.type, poly.power, poly.eta_min) == ('PolyLR', 0.9, 0.0)
    biases = load_config('mask_rcnn_r2n50_paper.py').optim_wrapper.paramwise_cfg
    assert biases == dict(bias_lr_mult=2.0, bias_decay_mult=0.0)


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'voc07' in name])
def test_voc07_protocol(name: str) -> None:
    cfg = load_config(name)
    assert cfg.train_dataloader.dataset.ann_file.endswith('Main/trainval.txt')
    assert cfg.test_dataloader.dataset.ann_file.endswith('Main/test.txt')
    assert cfg.test_evaluator.eval_mode == '11points'
    for part in ('train', 'test'):
        assert 'bbox_min_size' not in (cfg[f'{part}_dataloader'].dataset.get('filter_cfg') or {})
    difficult = [step.type for step in cfg.train_dataloader.dataset.pipeline if 'Difficult' in step.type]
    assert difficult == (['mmres2net.TrainOnDifficult'] if '_c4' in name else [])
    assert 'mmres2net.TrainOnDifficult' not in str(cfg.test_dataloader)


@pytest.mark.parametrize('name', ['faster_rcnn_r50_c4.py', 'faster_rcnn_r50_c4_voc07.py'])
def test_single_map_detector_is_the_papers_kind(name: str) -> None:
    cfg = load_config(name)
    assert [t.scale for t in cfg.train_dataloader.dataset.pipeline if t.type == 'Resize'] == [(1000, 600)]
    assert [t.scale for t in cfg.test_dataloader.dataset.pipeline if t.type == 'Resize'] == [(1000, 600)]
    scales = cfg.model.rpn_head.anchor_generator.scales
    assert [scale * 16 for scale in scales] == ([128, 256, 512] if 'voc' in name else [64, 128, 256, 512])
    assert cfg.model.test_cfg.rcnn == dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.3), max_per_img=100)
    assert not cfg.model.backbone.norm_cfg.requires_grad


@pytest.mark.parametrize('name', [name for name in CONFIGS if not name.startswith('demo/')])
def test_weights_and_input_belong_together(name: str) -> None:
    cfg = load_config(name)
    assert len(pretrained_of(cfg)) == (2 if '_c4' in name else 1)
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.bgr_to_rgb) == ([123.675, 116.28, 103.53], True)
    assert preprocessor.std == [58.395, 57.12, 57.375]


def build(name: str) -> nn.Module:
    """The model of a config with random weights."""
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_neck_and_heads_fit(name: str) -> None:
    with torch.device('meta'):
        model = build(name)
    assert isinstance(model.backbone, Res2Net) == (name in TWINS)
    if '_c4' in name:
        assert isinstance(model.roi_head.shared_head, Res2LayerHead) == (name in TWINS)


def test_both_twins_take_strides_and_dilations_alike() -> None:
    for name in ('deeplabv3plus_r50.py', 'deeplabv3plus_r2n50.py'):
        with torch.device('meta'):
            backbone = build(name).backbone
            strides = [160 // f.shape[-1] for f in backbone(torch.rand(2, 3, 160, 160))]
        assert strides == [4, 8, 16, 16]
        assert dilations_of(backbone.layer4) == [2, 4, 8]


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'deeplab' in name])
def test_aligned_corners_fall_on_features(name: str) -> None:
    """A feature lies on every 16th pixel from the first to the last only if there are 16 k + 1 of them."""
    cfg = load_config(name)
    size = cfg.model.data_preprocessor.size
    assert cfg.model.decode_head.align_corners
    assert [side % 16 for side in size] == [1, 1]
    assert cfg.model.data_preprocessor.test_cfg == dict(size=size)
    (crop,) = [t.crop_size for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomCrop'] or [size]
    assert crop == size


def dilations_of(stage: nn.Module) -> list[int]:
    return [max(m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d)) for block in stage]


def shrink(cfg: Config) -> Config:
    """The same steps on fewer and smaller images and regions."""
    for part in ('train', 'test'):
        for transform in cfg[f'{part}_dataloader'].dataset.pipeline:
            if transform.type == 'Resize' and max(transform.scale) > max(SMALL):
                transform.scale = SMALL
            elif transform.type == 'RandomCrop':
                transform.crop_size = (161, 161)
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = (161, 161)
        cfg.model.data_preprocessor.test_cfg.size = (257, 257)
    for _, node in walk(cfg.model, 'model'):
        if node.get('type') == 'RoIAlign':
            node['sampling_ratio'] = 2
    if 'rcnn' in cfg.model.train_cfg:
        cfg.model.train_cfg.rcnn.sampler.num = 32
        cfg.model.test_cfg.rpn.max_per_img = 50
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    return cfg


def data_of(name: str, shapes: Path) -> Path:
    if name.startswith('demo/'):
        return shapes
    return data_root('voc07_mini' if 'voc07' in name else 'voc12_mini' if 'deeplab' in name else 'coco_mini')


@pytest.mark.realdata
@pytest.mark.parametrize('name', [n if n in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_trains_and_predicts_on_its_data(name: str, shapes: Path) -> None:
    """One training step with a finite loss that reaches the whole backbone, and one prediction, on real images."""
    cfg = shrink(point_at(without_weights(load_config(name))[0], data_of(name, shapes)))
    cfg = single_process_norms(cfg)[0]
    init_default_scope(cfg.default_scope)
    check_classes(cfg, ['train', 'test'])
    model = MODELS.build(cfg.model)
    model.init_weights()
    step(model, next(iter(Runner.build_dataloader(cfg.train_dataloader))))

    model.eval()
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    with torch.no_grad():
        found = model.test_step({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})[0]
    if 'deeplab' in name:
        check_segmentation(found, model.decode_head.num_classes)
    else:
        check_detections(found, masks='mask_rcnn' in name)


def step(model: nn.Module, batch: dict[str, Any]) -> None:
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    assert torch.isfinite(losses)
    norms = {id(p) for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    shared = getattr(getattr(model, 'roi_head', None), 'shared_head', nn.Module())
    for part in (model.backbone, shared):
        assert all(p.grad is not None for p in part.parameters() if id(p) not in norms or p.requires_grad)


def check_segmentation(found: Any, num_classes: int) -> None:
    labels = found.pred_sem_seg.data
    assert labels.shape == (1, *found.ori_shape)
    assert int(labels.max()) < num_classes


def check_detections(found: Any, masks: bool) -> None:
    height, width = found.ori_shape
    boxes = found.pred_instances.bboxes
    assert boxes.shape[0] <= 100
    assert bool((boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all())
    assert ('masks' in found.pred_instances) == masks
    if masks:
        assert found.pred_instances.masks.shape == (len(boxes), height, width)
