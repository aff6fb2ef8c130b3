"""The recipes of salient object detection: targets of table 9, DSS's solver, twins, and a step of each."""

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from mmres2net.data.check import check_classes, check_images, check_paths
from mmres2net.data.layout import datasets_of, point_at
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.config import load_config, pretrained_of, without_weights
from mmres2net.engine.weights import check_pixels
from mmres2net.models import Res2Net
from mmres2net.paths import config_dir, list_configs
from mmres2net.saliency import DSSHead, SaliencyMetric, WithStem
from mmres2net.zoo import fields_of
from tests.support.realdata import data_root

CONFIGS = [name for name in list_configs() if re.match(r'(demo/)?dss_', name)]
TWINS = [name for name in CONFIGS if 'r2n50' in name]
SETS = ('ECSSD', 'PASCAL-S', 'HKU-IS', 'DUT-OMRON')
# Table 9: F and MAE.
TARGETS = {
    'dss_r50.py': ((0.910, 0.065), (0.823, 0.105), (0.894, 0.058), (0.748, 0.092)),
    'dss_r2n50.py': ((0.926, 0.056), (0.841, 0.099), (0.905, 0.050), (0.800, 0.071)),
}


def baseline_of(name: str) -> str:
    return name.replace('r2n50', 'r50')


def test_there_are_twins() -> None:
    assert {*TWINS, *map(baseline_of, TWINS)} == set(CONFIGS)
    assert set(TARGETS) < set(CONFIGS)


@pytest.mark.parametrize('name', TARGETS)
def test_targets_are_those_of_table_9(name: str) -> None:
    target = fields_of((config_dir() / name).read_text())['Target']
    told = re.findall(r'([A-Z-]+) (\.\d{3})/(\.\d{3})', target)
    assert [(data, float(f), float(mae)) for data, f, mae in told] == [
        (data, *row) for data, row in zip(SETS, TARGETS[name], strict=True)
    ]


@pytest.mark.parametrize('name', TWINS)
def test_twin_differs_in_the_backbone_alone(name: str) -> None:
    ours, baseline = (load_config(n).to_dict() for n in (name, baseline_of(name)))
    mine, theirs = (cfg['model']['backbone'].pop('backbone') for cfg in (ours, baseline))
    assert ours == baseline
    assert (mine['arch'], theirs['depth']) == ('res2net50_26w_4s', 50)
    for key in ('out_indices', 'strides', 'dilations', 'norm_cfg', 'norm_eval', 'zero_init_residual'):
        assert mine.get(key) == theirs.get(key), key
    weights = [node.get('init_cfg') and node['init_cfg']['checkpoint'] for node in (mine, theirs)]
    assert weights == ([None, None] if 'demo/' in name else ['res2net50_26w_4s', 'torchvision://resnet50'])


@pytest.mark.parametrize('name', CONFIGS)
def test_arithmetic_of_the_schedule(name: str) -> None:
    cfg = load_config(name)
    schedule = fields_of((config_dir() / name).read_text())['Schedule']
    numbers = [float(n.replace(',', '')) for n in re.findall(r'\d[\d,]*(?:\.\d+)?', schedule)]
    base = cfg.auto_scale_lr.base_batch_size
    assert base == cfg.train_dataloader.batch_size
    if name.startswith('demo/'):
        epochs, images, batch, steps = numbers
        assert (epochs, batch, steps) == (cfg.train_cfg.max_epochs, base, math.ceil(images / batch))
        assert cfg.param_scheduler[-1].end == cfg.param_scheduler[-1].T_max == epochs
        assert images == (120 if 'photos' in name else 392)
    else:
        steps, batch, epochs, images = numbers
        assert (steps, batch, images) == (cfg.train_cfg.max_iters, base, 2_500)
        assert epochs == round(steps * batch / images, 1)
        assert cfg.param_scheduler[0].end == steps > cfg.param_scheduler[0].milestones[0] == 7_500


def test_solver_takes_the_steps_of_caffe() -> None:
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


def test_trains_on_msra_b_and_tests_on_four_sets() -> None:
    cfg = load_config('dss_r2n50.py')
    assert [(d.dataset_name, d.ann_file) for part in ('train', 'val') for d in datasets_of(cfg, part)] == [
        ('MSRA-B', 'train.txt'),
        ('MSRA-B', 'val.txt'),
    ]
    tested = datasets_of(cfg, 'test')
    assert tuple(d.dataset_name for d in tested) == SETS
    assert [d.data_root for d in tested] == [f'data/saliency/{name}/' for name in SETS]
    assert [d.img_suffix for d in tested] == ['.jpg', '.jpg', '.png', '.jpg']
    assert 'Resize' not in str(cfg.test_dataloader) + str(cfg.train_dataloader)


@pytest.mark.parametrize('name', TARGETS)
def test_starts_from_weights_with_their_pixels_and_frozen_norms(name: str) -> None:
    cfg = load_config(name)
    assert len(pretrained_of(cfg)) == 1
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.bgr_to_rgb) == ([123.675, 116.28, 103.53], True)
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert check_pixels(cfg) == []
    scratch = without_weights(cfg)[0].model.backbone.backbone
    assert (scratch.norm_cfg.requires_grad, scratch.norm_eval, scratch.init_cfg) == (True, False, None)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_and_sides_fit_the_backbone(name: str) -> None:
    cfg = without_weights(load_config(name))[0]
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        features = model.extract_feat(torch.rand(1, 3, 300, 400))
        maps = model.decode_head.maps(features, (300, 400))
    assert isinstance(model.backbone, WithStem)
    assert isinstance(model.backbone.backbone, Res2Net) == (name in TWINS)
    assert isinstance(model.decode_head, DSSHead)
    assert model.decode_head.inference == 'public'
    assert [400 // f.shape[-1] for f in features] == [2, 4, 8, 16, 16]
    assert [map_.shape for map_ in maps] == [(1, 1, 300, 400)] * 6


# A step


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', spec=ShapesSpec(n_train=4, n_val=2, seed=2))


@pytest.fixture(scope='module')
def five_sets(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five data sets as tools/prepare_data.py lays them out, each with the embedded test images."""
    root = tmp_path_factory.mktemp('saliency')
    names = (shapes / 'saliency/test.txt').read_text().split()
    for data in ('MSRA-B', *SETS):
        for folder in ('images', 'masks'):
            (root / data / folder).mkdir(parents=True)
        for name in names:
            image = shapes / 'saliency/images' / f'{name}.jpg'
            if data == 'HKU-IS':
                Image.open(image).save(root / data / 'images' / f'{name}.png')
            else:
                shutil.copy(image, root / data / 'images')
            shutil.copy(shapes / 'saliency/masks' / f'{name}.png', root / data / 'masks')
    for part in ('train', 'val'):
        (root / 'MSRA-B' / f'{part}.txt').write_text('\n'.join(names))
    return root


def small(name: str, folder: Path) -> Config:
    """The config on other data with fewer channels of the sides: the step is the same."""
    cfg = point_at(without_weights(load_config(name))[0], folder)
    cfg.model.decode_head.channels = (8, 8, 8, 8, 8)
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2
    init_default_scope(cfg.default_scope)
    return cfg


def train_one_step(cfg: Config) -> nn.Module:
    model = MODELS.build(cfg.model)
    model.init_weights()
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert {name for name in losses if 'loss' in name} == {
        *(f'decode.loss_side{i}' for i in range(1, 6)),
        'decode.loss_fused',
    }
    total, _ = model.parse_losses(losses)
    total.backward()
    assert float(total.detach()) == pytest.approx(6 * math.log(2), rel=0.5)  # six maps that know nothing yet
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    return model.eval()


def evaluate(model: nn.Module, cfg: Config) -> dict[str, float]:
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            evaluator.process(data_batch=batch, data_samples=model.test_step(batch))
    return evaluator.evaluate(len(loader.dataset))


@pytest.mark.parametrize('name', TARGETS)
def test_recipe_trains_and_gives_figures_of_each_set(name: str, five_sets: Path) -> None:
    cfg = small(name, five_sets)
    check_paths(cfg, ['train', 'val', 'test'])
    check_classes(cfg, ['train', 'val', 'test'])
    check_images([DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'val', 'test')])
    figures = evaluate(train_one_step(cfg), cfg)
    assert {key.split('/')[0] for key in figures} == set(SETS)
    for data in SETS:
        assert 0 < figures[f'{data}/maxF'] < 1
        assert 0 < figures[f'{data}/MAE'] < 1
    # The same images and masks, PNG in one set and JPEG in the others: the decoded pixels are equal.
    assert len({round(figures[f'{data}/MAE'], 6) for data in SETS}) == 1


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('demo/')])
def test_demo_trains_and_gives_figures(name: str, shapes: Path) -> None:
    cfg = small(name, shapes)
    assert bool(cfg.embedded_data) == ('photos' not in name)
    check_classes(cfg, ['train', 'test'])
    figures = evaluate(train_one_step(cfg), cfg)
    assert 0 < figures['maxF'] < 1


@pytest.mark.realdata
def test_demo_reads_photographs_in_the_same_layout() -> None:
    cfg = small('demo/dss_r2n50_photos.py', data_root('ecssd_mini'))
    sets = [DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'test')]
    assert [len(dataset) for dataset in sets] == [120, 60]
    check_images(sets)
    sample = sets[1][0]
    metric = SaliencyMetric()
    truth = sample['data_samples'].gt_sem_seg.data
    assert tuple(truth.shape[1:]) == tuple(sample['data_samples'].ori_shape)
    metric.process(None, [dict(seg_logits=dict(data=truth.float()), gt_sem_seg=dict(data=truth), img_path='x')])
    assert metric.evaluate(1)['maxF'] == pytest.approx(1, abs=1e-6)
