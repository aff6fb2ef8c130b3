"""The CIFAR-100 recipes: rows and sizes of table 4, schedules, twins, a step of each, and a run that learns."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmres2net.cli import main
from mmres2net.data.check import check_classes
from mmres2net.data.cifar import FINE
from mmres2net.data.layout import point_at
from mmres2net.engine.config import load_config
from mmres2net.models import ARCHS
from mmres2net.paths import config_dir, list_configs
from mmres2net.sweep.runs import accuracies_in
from mmres2net.zoo import fields_of
from tests.reference.complexity import count_parameters
from tests.support.realdata import data_root

CONFIGS = [Path(name).stem for name in list_configs() if name.startswith('cifar100/')]
MINI = ['coarse_mini_res2next20', 'coarse_mini_resnext20']
BASELINE = 'resnext29_8c64w'
# The paper's table 4: size in millions and top-1 error
TABLE_4 = {
    'wrn28_10': (36.5, 20.50),
    'resnext29_8c64w': (34.4, 17.90),
    'resnext29_16c64w': (68.1, 17.31),
    'densenet_bc190_k40': (25.6, 17.18),
    'res2next29_6c24w4s': (24.3, 16.98),
    'res2next29_8c25w4s': (33.8, 16.93),
    'res2next29_6c24w6s': (36.7, 16.79),
    'se_resnext29_8c64w': (35.1, 16.77),
    'se_res2next29_6c24w4s': (26.0, 16.68),
    'se_res2next29_8c25w4s': (34.0, 16.64),
    'se_res2next29_6c24w6s': (36.9, 16.56),
}
FITS_NOTHING = 'se_res2next29_6c24w4s'  # no reduction gives its size in table 4
KINDS = ['coarse_mini_res2next20', 'res2next29_6c24w4s']  # the others are run by -m slow


def load(name: str) -> Config:
    return load_config(f'cifar100/{name}.py')


def fields(name: str) -> dict[str, str]:
    return fields_of((config_dir() / 'cifar100' / f'{name}.py').read_text())


def build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def size_of(name: str, classes: int) -> int:
    cfg = load(name)
    cfg.model.head.num_classes = classes
    with torch.device('meta'):
        return count_parameters(build(cfg))


def test_every_row_of_table_4_has_a_config() -> None:
    assert set(CONFIGS) == {*TABLE_4, *MINI, 'resnext29_6c24w'}
    assert {name for name, row in ARCHS.items() if row.family == 'cifar'} == set(TABLE_4) - {
        'wrn28_10',
        'densenet_bc190_k40',
    }


@pytest.mark.parametrize('name', TABLE_4)
def test_target_and_size_are_those_of_table_4(name: str) -> None:
    printed, error = TABLE_4[name]
    target = re.match(r'top-1 error ([\d.]+), .*\(table 4\)', fields(name)['Target'])
    assert float(target[1]) == error
    ours, mentioned = re.match(r'([\d.]+)M; .*?([\d.]+)M', fields(name)['Parameters']).groups()
    assert float(mentioned) == printed
    assert float(ours) == round(size_of(name, 100) / 1e6, 2)
    # What is printed fits 10 classes, rounded or, in one row, cut.
    with_ten = size_of(name, 10) / 1e6
    assert (printed in (round(with_ten, 1), math.floor(with_ten * 10) / 10)) == (name != FITS_NOTHING)


def test_size_of_the_sweeps_baseline() -> None:
    stated = re.match(r'([\d.]+)M', fields('resnext29_6c24w')['Parameters'])[1]
    assert float(stated) == round(size_of('resnext29_6c24w', 100) / 1e6, 2)


@pytest.mark.parametrize('name', [name for name in ARCHS if name in TABLE_4])
def test_rows_differ_from_the_baseline_in_the_backbone_alone(name: str) -> None:
    ours, baseline = load(name).to_dict(), load(BASELINE).to_dict()
    assert ours['model'].pop('backbone') == {**baseline['model'].pop('backbone'), 'arch': name}
    assert ours == baseline


def test_mini_twins_differ_in_the_backbone_alone() -> None:
    ours, twin = (load(name).to_dict() for name in MINI)
    mine, other = ours['model'].pop('backbone'), twin['model'].pop('backbone')
    assert ours == twin
    assert {key for key in mine if mine[key] != other[key]} == {'base_width', 'scales'}
    assert mine['base_width'] * mine['scales'] == other['base_width']


def recipe_of(name: str) -> tuple[Any, ...]:
    cfg = load(name)
    sgd, (steps,) = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (sgd.type, sgd.momentum, sgd.nesterov, steps.type, steps.by_epoch) == ('SGD', 0.9, True, 'MultiStepLR', True)
    assert cfg.train_cfg.max_epochs == steps.end
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size
    batch = cfg.train_dataloader.batch_size
    return batch, sgd.lr, sgd.weight_decay, cfg.train_cfg.max_epochs, steps.milestones, steps.gamma


def test_recipes() -> None:
    resnext = (64, 0.05, 0.0005, 300, [150, 225], 0.1)
    special = {
        'wrn28_10': (128, 0.1, 0.0005, 200, [60, 120, 160], 0.2),
        'densenet_bc190_k40': (64, 0.1, 0.0001, 300, [150, 225], 0.1),
    }
    for name in set(CONFIGS) - set(MINI):
        assert recipe_of(name) == special.get(name, resnext), name


def test_rate_falls_to_a_tenth_after_150_and_225_epochs() -> None:
    cfg = load(BASELINE)
    optimizer = OptimWrapper(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.05))
    scheduler = PARAM_SCHEDULERS.build(dict(cfg.param_scheduler[0], optimizer=optimizer))
    rates = []
    for _ in range(300):
        rates.append(round(optimizer.get_lr()['lr'][0], 9))
        optimizer.step()
        scheduler.step()
    assert rates == [0.05] * 150 + [0.005] * 75 + [0.0005] * 75


@pytest.mark.parametrize('name', CONFIGS)
def test_arithmetic_of_the_docstring(name: str) -> None:
    cfg = load(name)
    numbers = [int(number.replace(',', '')) for number in re.findall(r'[\d,]*\d', fields(name)['Schedule'])]
    images = cfg.train_dataloader.dataset.get('indices', 50_000)
    batch = cfg.train_dataloader.batch_size
    assert numbers == [cfg.train_cfg.max_epochs, images, batch, math.ceil(images / batch)]


def test_pixels_and_padding() -> None:
    """Padding is 0 after normalisation, to less than a hundredth of the deviation."""
    cfg = load(BASELINE)
    pixels = cfg.model.data_preprocessor
    assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    crop = cfg.train_dataloader.dataset.pipeline[0]
    assert (crop.type, crop.crop_size, crop.padding) == ('RandomCrop', 32, 4)
    padded = (np.array(crop.pad_val) - pixels.mean) / pixels.std
    assert np.abs(padded).max() < 0.01
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == ['PackInputs']


def test_twenty_classes_under_a_head_of_a_hundred_are_refused(tmp_path: Path, capsys) -> None:
    root = tmp_path / 'cifar-100-python'
    root.mkdir()
    for name in ('train', 'test'):
        rows = np.zeros((2, 3072), np.uint8)
        (root / name).write_bytes(pickle.dumps({'data': rows, 'fine_labels': [0, 1], 'coarse_labels': [0, 1]}))
    parts = [f'{part}_dataloader.dataset.type=mmres2net.CIFAR100Coarse' for part in ('train', 'val', 'test')]
    flags = ['--data', str(tmp_path), '--work-dir', str(tmp_path / 'run'), '--cfg-options', *parts]
    assert main(['train', f'cifar100/{BASELINE}', *flags]) == 2
    assert 'model.head.num_classes=100, but the data set has 20 classes' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


@pytest.mark.realdata
@pytest.mark.parametrize('name', [n if n in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_trains_and_predicts_on_its_data(name: str) -> None:
    """One training step with a finite loss that reaches the whole network, and one prediction, on real images."""
    cfg = point_at(load(name), data_root('cifar100_mini'))
    check_classes(cfg, ['train', 'val', 'test'])
    model = build(cfg)
    model.init_weights()
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    assert batch['inputs'].dtype == torch.uint8
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    classes = cfg.model.head.num_classes
    # Random weights know nothing: the loss is near that of as many classes.
    assert abs(losses.item() - math.log(classes)) < 1.5
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())

    model.eval()
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    with torch.no_grad():
        found = model.test_step({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})[0]
    assert found.pred_score.shape == (classes,)
    assert float(found.pred_score.sum()) == pytest.approx(1, abs=1e-5)
    assert 0 <= int(found.pred_label) < classes <= len(FINE)


@pytest.mark.realdata
@pytest.mark.slow
def test_mini_run_learns(tmp_path: Path) -> None:
    """A third of the shipped run. Chance is 5, and the most frequent class alone would give 7.1 of the 480 images."""
    epochs = 5
    short = [f'train_cfg.max_epochs={epochs}', f'param_scheduler.0.end={epochs}', f'param_scheduler.0.T_max={epochs}']
    flags = ['--data', str(data_root('cifar100_mini')), '--work-dir', str(tmp_path), '--cfg-options', *short]
    assert main(['train', 'cifar100/coarse_mini_res2next20', *flags]) == 0
    assert accuracies_in(tmp_path)[epochs] > 12
