"""The recipes: schedules, protocols of the data sets, and pixels, as the paper and the public codes have them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision import transforms

from mmres2net.data.layout import datasets_of
from mmres2net.engine.build import build_dataset, build_model
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from mmres2net.engine.weights import check_normalization
from mmres2net.models import Res2Net
from tests.configs.pairs import CONFIGS
from tests.reference.complexity import count_parameters, count_work

SETS = ('ECSSD', 'PASCAL-S', 'HKU-IS', 'DUT-OMRON')
# By name: images per step, processes, learning rate, weight decay, epochs or steps, where the learning rate falls.
RECIPES: dict[str, tuple[Any, ...]] = {
    'cifar10/res.*20_': (128, 1, 0.3, 0.0005, 12, None), 'cifar100/coarse_mini': (50, 1, 0.002, 0.05, 15, None),
    'cifar100/wrn28_10': (128, 1, 0.1, 0.0005, 200, [60, 120, 160]),
    'cifar100/densenet': (64, 1, 0.1, 0.0001, 300, [150, 225]), 'cifar100?/': (64, 1, 0.05, 0.0005, 300, [150, 225]),
    'demo/dss_.*photos': (4, 1, 0.0008, 0.05, 24, None), 'demo/': (4, 1, 0.0008, 0.05, 4, None),
    'imagenet/': (256, 4, 0.1, 0.0001, 100, [30, 60, 90]), 'deeplabv3plus': (16, 4, 0.01, 0.0001, 30_000, None),
    'dss': (10, 1, 1.2e-3, 5e-4 / 120_000, 12_000, [7_500]),
    'mask_rcnn_.*_paper': (16, 8, 0.02, 0.0001, 180_000, [120_000, 160_000]),
    'faster_rcnn_.*_c4_voc07': (1, 1, 0.001, 0.0001, 14, [10]), 'faster_rcnn_.*_c4': (16, 8, 0.01, 0.0001, 10, [8]),
    'faster_rcnn_.*_voc07': (16, 8, 0.02, 0.0001, 17, [11, 15]), '.*_2x': (16, 8, 0.02, 0.0001, 24, [16, 22]),
    '': (16, 8, 0.02, 0.0001, 12, [8, 11]),
}  # fmt: skip


@pytest.mark.parametrize('name', CONFIGS)
def test_schedule(name: str) -> None:
    cfg = load_config(name)
    images, processes, rate, decay, length, milestones = next(r for k, r in RECIPES.items() if re.match(k, name))
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size * processes) == (images, images)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (pytest.approx(rate), pytest.approx(decay))
    assert optimizer.type == ('AdamW' if CONFIGS[name]['recipe'] == 'demo' else 'SGD')
    assert optimizer.get('momentum', 0.9) == 0.9
    by_epoch = cfg.train_cfg.type == 'EpochBasedTrainLoop'
    assert (cfg.train_cfg.max_epochs if by_epoch else cfg.train_cfg.max_iters) == length
    (fall,) = (s for s in cfg.param_scheduler if s['type'] != 'LinearLR')
    assert (fall['by_epoch'], fall['end'], fall.get('milestones')) == (by_epoch, length, milestones)
    assert fall.get('gamma', 0.1) == (0.2 if 'wrn' in name else 0.1)
    assert cfg.default_hooks.checkpoint.get('by_epoch', True) == cfg.log_processor.by_epoch == by_epoch
    assert by_epoch or cfg.train_dataloader.sampler.type == 'InfiniteSampler'


def test_other_settings_of_the_schedules() -> None:
    poly = load_config('deeplabv3plus_r2n50.py')
    assert poly.param_scheduler == [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=30_000)]
    biases = load_config('mask_rcnn_r2n50_paper.py').optim_wrapper.paramwise_cfg
    assert biases == dict(bias_lr_mult=2.0, bias_decay_mult=0.0)
    assert load_config('cifar100/resnext29_8c64w.py').optim_wrapper.optimizer.nesterov
    assert not load_config('imagenet/resnet50.py').optim_wrapper.optimizer.get('nesterov')


def test_dss_solver_takes_the_steps_of_caffe() -> None:
    """Steps of Caffe on losses summed over pixels and averaged over 10 images, ours on means; decay included."""
    optimizer = load_config('dss_r50.py').optim_wrapper.optimizer
    weight, target = torch.tensor([0.3], dtype=torch.float64), torch.rand(10, 300, 400, dtype=torch.float64)
    ours = weight.clone().requires_grad_()
    solver = torch.optim.SGD([ours], lr=optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay)
    caffe, history = weight, 0.0
    for _ in range(3):
        solver.zero_grad()
        ((ours - target) ** 2).mean().backward()
        solver.step()
        gradient = (2 * (caffe - target)).sum((1, 2)).mean() + 5e-4 * caffe
        history = 0.9 * history + 1e-8 * gradient
        caffe = caffe - history
    torch.testing.assert_close(ours.detach(), caffe, rtol=1e-12, atol=0)
    assert float((ours.detach() - weight).abs()) > 1e-4


def test_scales_on_cifar10_cost_the_same_and_differ_in_scale_and_width_alone() -> None:
    costs = {}
    for name in (name for name in CONFIGS if re.match('cifar10/res.*20_', name)):
        backbone = load_config(name).model.backbone
        model = Res2Net(**{key: value for key, value in backbone.items() if key != 'type'})
        costs[backbone.scales] = count_parameters(model), count_work(model, (1, 3, 32, 32))[0]
    assert sorted(costs) == [1, 2, 3, 4, 6]
    for parameters, macs in costs.values():
        assert parameters == pytest.approx(costs[1][0], rel=0.02)
        assert macs == pytest.approx(costs[1][1], rel=0.02)
        assert 10e6 < macs < 40e6


def test_training_on_cifar10_is_validated_on_images_that_are_held_out_of_the_training_set(tmp_path: Path) -> None:
    names = [f'{part}/cat/{i:04d}.jpg' for part in ('train', 'val') for i in range(40)]
    cfg = load_config('cifar10/resnext20_2c22w.py')
    for label in cfg.metainfo.classes:
        for part in ('train', 'val'):
            (tmp_path / part / label).mkdir(parents=True)
    for name in names:
        (tmp_path / name).touch()
    read = {}
    for part in ('train', 'val', 'test'):
        data = build_dataset(cfg, {**cfg[f'{part}_dataloader'].dataset, 'data_root': str(tmp_path)})
        read[part] = {str(Path(data.get_data_info(i)['img_path']).relative_to(tmp_path)) for i in range(len(data))}
    assert read['val'] == {name for name in names[:40] if name.endswith('0.jpg')}
    assert read['train'] == set(names[:40]) - read['val']
    assert read['test'] == set(names[40:])


def scales_of(cfg: Config, part: str) -> list[Any]:
    return [step.scale for step in cfg[f'{part}_dataloader'].dataset.pipeline if step.type == 'Resize']


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'rcnn' in name and 'demo' not in name])
def test_detectors(name: str) -> None:
    cfg = load_config(name)
    single_map, voc = '_c4' in name, 'voc07' in name
    scale = (1000, 600) if single_map or voc else (1333, 800)
    assert scales_of(cfg, 'train') == scales_of(cfg, 'test') == [scale]
    difficult = [step.type for step in cfg.train_dataloader.dataset.pipeline if 'Difficult' in step.type]
    assert difficult == (['mmres2net.TrainOnDifficult'] if single_map and voc else [])
    assert 'TrainOnDifficult' not in str(cfg.test_dataloader)
    if voc:
        assert cfg.train_dataloader.dataset.ann_file.endswith('Main/trainval.txt')
        assert cfg.test_dataloader.dataset.ann_file.endswith('Main/test.txt')
        assert cfg.test_evaluator.eval_mode == '11points'
        assert all('bbox_min_size' not in str(cfg[f'{part}_dataloader']) for part in ('train', 'test'))
    if single_map:
        sides = [scale * 16 for scale in cfg.model.rpn_head.anchor_generator.scales]
        assert sides == ([128, 256, 512] if voc else [64, 128, 256, 512])
        assert cfg.model.test_cfg.rcnn == dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.3), max_per_img=100)
        assert not cfg.model.backbone.norm_cfg.requires_grad


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'deeplab' in name])
def test_training_crops_of_aligned_corners_have_16_k_and_1_pixels(name: str) -> None:
    """A feature lies on every 16th pixel from the first to the last only at these sizes."""
    cfg = load_config(name)
    size = cfg.model.data_preprocessor.size
    assert cfg.model.decode_head.align_corners
    assert [side % 16 for side in size] == [1, 1]
    crops = [step.crop_size for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop']
    assert crops == ([] if 'demo' in name else [size])


@pytest.mark.parametrize('name', ['deeplabv3plus_r50.py', 'deeplabv3plus_r2n50.py'])
def test_output_stride_16_and_multi_grid(name: str) -> None:
    cfg = single_process_norms(without_weights(load_config(name))[0])[0]
    with torch.device('meta'):
        backbone = build_model(cfg).backbone
        assert [160 // f.shape[-1] for f in backbone(torch.rand(2, 3, 160, 160))] == [4, 8, 16, 16]
    dilations = [max(m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d)) for block in backbone.layer4]
    assert dilations == [2, 4, 8]


@pytest.mark.parametrize('name', ['dss_r50.py', 'dss_r2n50.py'])
def test_dss(name: str) -> None:
    """Trained on MSRA-B and tested on four sets at their own sizes; maps at strides 2 to 16, norms frozen."""
    cfg = load_config(name)
    lists = [(d.dataset_name, d.ann_file) for part in ('train', 'val') for d in datasets_of(cfg, part)]
    assert lists == [('MSRA-B', 'train.txt'), ('MSRA-B', 'val.txt')]
    tested = datasets_of(cfg, 'test')
    assert tuple(d.dataset_name for d in tested) == SETS
    assert [d.data_root for d in tested] == [f'data/saliency/{name}/' for name in SETS]
    assert [d.img_suffix for d in tested] == ['.jpg', '.jpg', '.png', '.jpg']
    assert 'Resize' not in str(cfg.test_dataloader) + str(cfg.train_dataloader)
    assert check_normalization(cfg) == []
    scratch = without_weights(cfg)[0]
    backbone = scratch.model.backbone.backbone
    assert (backbone.norm_cfg.requires_grad, backbone.norm_eval, backbone.init_cfg) == (True, False, None)
    with torch.device('meta'):
        model = build_model(scratch).eval()
        features = model.extract_feat(torch.rand(1, 3, 300, 400))
        maps = model.decode_head.maps(features, (300, 400))
    assert [400 // f.shape[-1] for f in features] == [2, 4, 8, 16, 16]
    assert [map_.shape for map_ in maps] == [(1, 1, 300, 400)] * 6


@pytest.mark.parametrize(('name', 'crop', 'edge'), [('resnet50', 224, 256), ('res2net50_26w_4s_299', 299, 342)])
def test_imagenet_pixels_are_those_of_torchvisions_transforms(name: str, crop: int, edge: int, tmp_path: Path) -> None:
    """Resize, centre crop and normalization, on sharp pixels scaled down and smooth ones scaled up."""
    cfg = load_config(f'imagenet/{name}.py')
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = [transforms.Resize(edge), transforms.CenterCrop(crop), transforms.ToTensor(), normalize]
    expected = transforms.Compose(steps)
    preprocess = build_model(cfg).data_preprocessor
    (tmp_path / 'val' / 'a').mkdir(parents=True)
    images = []
    for i, (grid, size) in enumerate([((512, 768), (768, 512)), ((12, 12), (240, 160))]):
        noise = np.random.default_rng(i).integers(0, 256, (*grid, 3), dtype=np.uint8)
        images.append(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
        images[i].save(tmp_path / 'val' / 'a' / f'{i}.png')
    dataset = build_dataset(cfg, dict(cfg.test_dataloader.dataset, type='CustomDataset', data_root=str(tmp_path)))
    for i, image in enumerate(images):
        (found,) = preprocess({'inputs': [dataset[i]['inputs']]})['inputs']
        assert found.shape == (3, crop, crop)
        assert (found - expected(image)).abs().mean() < 0.005  # a step of 1 in 255 is 0.018
    lazy = dict(cfg.train_dataloader.dataset, type='CustomDataset', data_root='x', lazy_init=True)
    _, crops, flip, _ = build_dataset(cfg, lazy).pipeline.transforms
    theirs = transforms.RandomResizedCrop(crop)
    assert crops.scale == tuple(theirs.size)
    assert (crops.crop_ratio_range, crops.aspect_ratio_range) == (theirs.scale, theirs.ratio)
    assert (crops.interpolation, theirs.interpolation.value, flip.prob) == ('bilinear', 'bilinear', 0.5)


def test_label_smoothing_is_all_that_its_configs_change() -> None:
    smooth, plain = (load_config(f'imagenet/{name}.py') for name in ('resnet50_smooth', 'resnet50'))
    scores, labels = torch.randn(4, 1000), torch.tensor([1, 999, 0, 500])
    for cfg, smoothing in ((smooth, 0.1), (plain, 0.0)):
        loss = build_model(cfg).head.loss_module(scores, labels)
        assert loss.item() == pytest.approx(functional.cross_entropy(scores, labels, label_smoothing=smoothing).item())
    smooth, plain = smooth.to_dict(), plain.to_dict()
    assert smooth.pop('smoothed_loss') == smooth['model']['head'].pop('loss')
    plain['model']['head'].pop('loss')
    assert smooth == plain


def test_cifar_pads_with_zeros_after_normalization() -> None:
    cfg = load_config('cifar100/resnext29_8c64w.py')
    pixels = cfg.model.data_preprocessor
    assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    crop = cfg.train_dataloader.dataset.pipeline[0]
    assert (crop.type, crop.crop_size, crop.padding) == ('RandomCrop', 32, 4)
    assert np.abs((np.array(crop.pad_val) - pixels.mean) / pixels.std).max() < 0.01
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == ['PackInputs']
