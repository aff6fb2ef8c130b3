"""Every shipped config loads, says what it is, is short, builds, and differs from its twin in the backbone alone."""

import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner

from mmres2net.data.check import check_classes
from mmres2net.data.layout import point_at
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.config import load_config, pretrained_of, without_weights
from mmres2net.models import Res2Net
from mmres2net.paths import config_dir, list_configs
from tests.realdata import data_root

CONFIGS = list_configs()
TWINS = [name for name in CONFIGS if 'r2n50' in name]
SMALL = (320, 240)  # pixels, in place of the recipe's size: the step is the same


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', spec=ShapesSpec(n_train=12, n_val=6, seed=1))


def text_of(name: str) -> str:
    return (config_dir() / name).read_text()


def test_there_are_configs_and_twins() -> None:
    assert {'faster_rcnn_r50.py', 'faster_rcnn_r2n50.py', 'demo/faster_rcnn_r2n50.py'} <= set(CONFIGS)
    assert len(TWINS) == len(CONFIGS) / 2


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_says_what_it_is(name: str) -> None:
    text = text_of(name)
    assert len(text.splitlines()) <= 40
    docstring = ast.get_docstring(ast.parse(text)) or ''
    if name.startswith('demo/'):
        assert 'rank no backbone' in docstring
    else:
        assert [key for key in ('Family:', 'Target:', 'Schedule:', 'Status:') if key not in docstring] == []


@pytest.mark.parametrize('name', TWINS)
def test_twin_differs_in_the_backbone_alone(name: str) -> None:
    ours, baseline = (load_config(n).to_dict() for n in (name, name.replace('r2n50', 'r50')))
    mine, theirs = ours['model'].pop('backbone'), baseline['model'].pop('backbone')
    assert ours == baseline
    assert (mine['type'], theirs['type']) == ('mmres2net.Res2Net', 'mmdet.ResNet')
    shared = ('out_indices', 'frozen_stages', 'norm_cfg', 'norm_eval', 'zero_init_residual')
    assert {key: mine[key] for key in shared if key in mine} == {key: theirs[key] for key in shared if key in mine}


@pytest.mark.parametrize('name', CONFIGS)
def test_schedule_fits_its_learning_rate(name: str) -> None:
    cfg = load_config(name)
    base = cfg.auto_scale_lr.base_batch_size
    processes = 1 if name.startswith('demo/') else 8
    assert cfg.train_dataloader.batch_size * processes == base
    epochs = cfg.train_cfg.max_epochs
    for scheduler in cfg.param_scheduler:
        if scheduler['by_epoch']:
            assert scheduler['end'] == epochs
            assert all(milestone < epochs for milestone in scheduler.get('milestones', []))


def test_coco_1x_schedule() -> None:
    cfg = load_config('faster_rcnn_r2n50.py')
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
    assert [t.scale for t in cfg.train_dataloader.dataset.pipeline if t.type == 'Resize'] == [(1333, 800)]


def test_voc07_protocol() -> None:
    cfg = load_config('faster_rcnn_r2n50_voc07.py')
    assert cfg.test_evaluator == dict(type='VOCMetric', metric='mAP', iou_thrs=0.5, eval_mode='11points')
    assert cfg.train_dataloader.dataset.ann_file.endswith('Main/trainval.txt')
    assert cfg.test_dataloader.dataset.ann_file.endswith('Main/test.txt')
    assert 'bbox_min_size' not in cfg.train_dataloader.dataset.filter_cfg


@pytest.mark.parametrize('name', [name for name in CONFIGS if not name.startswith('demo/')])
def test_weights_and_input_belong_together(name: str) -> None:
    cfg = load_config(name)
    assert len(pretrained_of(cfg)) == 1
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.bgr_to_rgb) == ([123.675, 116.28, 103.53], True)
    assert preprocessor.std == [58.395, 57.12, 57.375]


def shrink(cfg: Config) -> Config:
    for part in ('train', 'test'):
        for transform in cfg[f'{part}_dataloader'].dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = SMALL
    return cfg


@pytest.mark.realdata
@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts_on_its_data(name: str, shapes: Path) -> None:
    """One training step with a finite loss that reaches the whole backbone, and one prediction, on real images."""
    mini = shapes if name.startswith('demo/') else data_root('voc07_mini' if 'voc07' in name else 'coco_mini')
    cfg = shrink(point_at(without_weights(load_config(name))[0], mini))
    init_default_scope(cfg.default_scope)
    check_classes(cfg, ['train', 'test'])
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert isinstance(model.backbone, Res2Net) == ('r2n50' in name)

    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    assert torch.isfinite(losses)
    assert all(p.grad is not None for p in model.backbone.parameters())

    model.eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    sample = dataset[0]
    with torch.no_grad():
        found = model.test_step({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})[0]
    height, width = found.ori_shape
    boxes = found.pred_instances.bboxes
    assert boxes.shape[0] <= 100
    assert bool((boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all())
