"""The ImageNet recipes: targets of tables 1 to 3, the paper's schedule and pixels, twins, and a step of each."""

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision import transforms

from mmres2net.cli import main
from mmres2net.data.check import check_classes, check_paths
from mmres2net.data.layout import point_at
from mmres2net.engine.config import load_config
from mmres2net.models import Res2Net, Res2NetDLA
from mmres2net.paths import config_dir, list_configs
from mmres2net.zoo import fields_of

CONFIGS = [name for name in list_configs() if name.startswith('imagenet/')]
BASELINES = {
    'res2net50_26w_4s': 'resnet50',
    'res2net50_48w_2s': 'resnet50',
    'res2net50_14w_8s': 'resnet50',
    'res2net50_26w_6s': 'resnet50',
    'res2net50_26w_8s': 'resnet50',
    'res2net50_18w_4s': 'resnet50',
    'res2net50_26w_4s_smooth': 'resnet50_smooth',
    'res2next50_4s': 'resnext50',
    'res2net_dla60_4s': 'dla60',
    'res2next_dla60_4s': 'dla60x',
    'se_res2net50_26w_4s': 'senet50',
    'res2net101_26w_4s': 'resnet101',
}
# The paper's table, top-1 and top-5 error
TARGETS = {
    'resnet50': (1, 23.85, 7.13),
    'res2net50_26w_4s': (1, 22.01, 6.15),
    'res2net50_26w_4s_smooth': (1, 22.01, 6.15),
    'res2net50_26w_4s_299': (1, 21.41, 5.88),
    'resnext50': (1, 22.61, 6.50),
    'res2next50_4s': (1, 21.76, 6.09),
    'dla60': (1, 23.32, 6.60),
    'res2net_dla60_4s': (1, 21.53, 5.80),
    'dla60x': (1, 22.19, 6.13),
    'res2next_dla60_4s': (1, 21.55, 5.86),
    'senet50': (1, 23.24, 6.69),
    'se_res2net50_26w_4s': (1, 21.56, 5.94),
    'densenet161': (2, 22.35, 6.20),
    'resnet101': (2, 22.63, 6.44),
    'res2net101_26w_4s': (2, 20.81, 5.57),
    'res2net50_48w_2s': (3, 23.68, 6.47),
    'res2net50_14w_8s': (3, 21.86, 6.14),
    'res2net50_26w_6s': (3, 21.42, 5.87),
    'res2net50_26w_8s': (3, 20.80, 5.63),
    'res2net50_18w_4s': (3, 22.92, 6.67),
}
KINDS = ['imagenet/res2net50_26w_4s_smooth.py', 'imagenet/resnet50.py']  # the others are run by -m slow
SIDE = 64  # pixels, in place of the recipe's: the step is the same


def load(name: str) -> Config:
    return load_config(f'imagenet/{name}.py')


def write_classes(root: Path, names: list[str], *, images: int = 1) -> Path:
    """Write ``train`` and ``val`` with a folder of small images for each class."""
    drawn = []
    for i in range(8):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file, 'JPEG')
        drawn.append(file.getvalue())
    for part in ('train', 'val'):
        for n, name in enumerate(names):
            (root / part / name).mkdir(parents=True)
            for i in range(images):
                (root / part / name / f'{name}_{i}.JPEG').write_bytes(drawn[(n + i) % 8])
    return root


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 classes of one image each, in the published layout."""
    return write_classes(tmp_path_factory.mktemp('imagenet'), [f'n{i:08d}' for i in range(1000)])


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_classes(tmp_path / 'pets', ['cat', 'dog'], images=4)


def test_there_are_configs_for_all_rows() -> None:
    names = {Path(name).stem for name in CONFIGS}
    assert names == set(TARGETS) | {'resnet50_smooth'}
    assert names == set(BASELINES) | set(BASELINES.values()) | {'res2net50_26w_4s_299', 'densenet161'}


@pytest.mark.parametrize('name', TARGETS)
def test_target_is_the_papers(name: str) -> None:
    target = fields_of((config_dir() / f'imagenet/{name}.py').read_text())['Target']
    top1, top5, table = re.match(r'top-1 error ([\d.]+), top-5 error ([\d.]+), .*?\(tables? (\d)', target).groups()
    assert (int(table), float(top1), float(top5)) == TARGETS[name]


@pytest.mark.parametrize('name', CONFIGS)
def test_arithmetic_of_the_docstring(name: str) -> None:
    cfg = load_config(name)
    schedule = fields_of((config_dir() / name).read_text())['Schedule']
    epochs, images, batch, steps = (int(n.replace(',', '')) for n in re.findall(r'\d[\d,]*', schedule))
    assert (epochs, batch, images) == (cfg.train_cfg.max_epochs, cfg.auto_scale_lr.base_batch_size, 1_281_167)
    assert steps == math.ceil(images / batch)
    assert batch == 4 * cfg.train_dataloader.batch_size
    assert '--nproc-per-node 4' in (config_dir() / name).read_text()


@pytest.mark.parametrize('name', CONFIGS)
def test_schedule_is_the_papers(name: str) -> None:
    cfg = load_config(name)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0001)
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    weight = nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=cfg.optim_wrapper.optimizer.lr))
    (scheduler,) = (
        PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=wrapper)) for one in cfg.param_scheduler
    )
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(wrapper.get_lr()['lr'][0])
        wrapper.step()
        scheduler.step()
    assert rates == pytest.approx([0.1 * 0.1 ** (epoch // 30) for epoch in range(100)])


@pytest.mark.parametrize(('name', 'crop', 'edge'), [('resnet50', 224, 256), ('res2net50_26w_4s_299', 299, 342)])
def test_pixels_are_those_of_torchvisions_transforms(name: str, crop: int, edge: int, tmp_path: Path) -> None:
    """Resize, centre crop and normalisation, on sharp pixels scaled down and smooth ones scaled up."""
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    expected = transforms.Compose(
        [
            transforms.Resize(edge),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    preprocess = MODELS.build(cfg.model.data_preprocessor)
    for i, (grid, size) in enumerate([((512, 768), (768, 512)), ((12, 12), (240, 160))]):
        noise = np.random.default_rng(i).integers(0, 256, (*grid, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        for part in ('train', 'val'):
            (tmp_path / part / 'a').mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / part / 'a' / f'{i}.png')
        dataset = dict(cfg.test_dataloader.dataset, type='CustomDataset', data_root=str(tmp_path))
        sample = DATASETS.build(dataset)[i]
        (found,) = preprocess({'inputs': [sample['inputs']]})['inputs']
        assert found.shape == (3, crop, crop)
        assert (found - expected(image)).abs().mean() < 0.005  # a step of 1 in 255 is 0.018


@pytest.mark.parametrize('name', ['resnet50', 'res2net50_26w_4s_299'])
def test_training_takes_the_random_crops_of_torchvision(name: str) -> None:
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    _, crop, flip, _ = DATASETS.build(
        dict(type='CustomDataset', data_root='x', lazy_init=True, pipeline=cfg.train_dataloader.dataset.pipeline)
    ).pipeline.transforms
    side = cfg.train_dataloader.dataset.pipeline[1].scale
    theirs = transforms.RandomResizedCrop(side)
    assert crop.scale == (side, side) == tuple(theirs.size)
    assert (crop.crop_ratio_range, crop.aspect_ratio_range) == (theirs.scale, theirs.ratio)
    assert (crop.interpolation, theirs.interpolation.value) == ('bilinear', 'bilinear')
    assert flip.prob == 0.5
    assert cfg.test_dataloader.dataset.pipeline[2].crop_size == side


def test_smoothed_loss_is_torchs() -> None:
    cfg = load('res2net50_26w_4s_smooth')
    init_default_scope(cfg.default_scope)
    loss = MODELS.build(cfg.model.head.loss)
    scores, labels = torch.randn(4, 1000), torch.tensor([1, 999, 0, 500])
    assert loss(scores, labels).item() == pytest.approx(functional.cross_entropy(scores, labels, label_smoothing=0.1))
    plain = MODELS.build(load('res2net50_26w_4s').model.head.loss)
    assert plain(scores, labels).item() == pytest.approx(functional.cross_entropy(scores, labels).item())


@pytest.mark.parametrize('name', BASELINES)
def test_ours_differs_from_its_baseline_in_the_backbone_alone(name: str) -> None:
    ours, baseline = (load(n).to_dict() for n in (name, BASELINES[name]))
    mine, theirs = ours['model'].pop('backbone'), baseline['model'].pop('backbone')
    assert ours == baseline
    arch = name.removesuffix('_smooth')
    kind = 'Res2NetDLA' if 'dla' in name else 'Res2Net'
    assert mine == dict(type=f'mmres2net.{kind}', arch=arch, out_indices=(3,))
    if kind == 'Res2Net':
        assert (theirs['out_indices'], theirs['style'], theirs['zero_init_residual']) == ((3,), 'pytorch', False)
    else:
        assert theirs == dict(mine, arch=BASELINES[name])
    assert (
        f'{BASELINES[name]}.py with another backbone and nothing else'
        in (fields_of((config_dir() / f'imagenet/{name}.py').read_text())['title'])
    )


def test_larger_images_are_all_that_the_299_row_changes() -> None:
    larger, ours = (load(name).to_dict() for name in ('res2net50_26w_4s_299', 'res2net50_26w_4s'))
    for cfg in (larger, ours):
        for key in ('crop_size', 'short_edge', 'train_pipeline', 'test_pipeline'):
            cfg.pop(key)
        for part in ('train', 'val', 'test'):
            for step in cfg[f'{part}_dataloader']['dataset']['pipeline']:
                step.pop('scale', None)
                step.pop('crop_size', None)
    assert larger == ours


def test_smoothing_is_all_that_its_pair_changes() -> None:
    smooth, plain = (load(name).to_dict() for name in ('resnet50_smooth', 'resnet50'))
    assert smooth.pop('smoothed_loss') == smooth['model']['head'].pop('loss')
    plain['model']['head'].pop('loss')
    assert smooth == plain


def shrink(cfg: Config) -> Config:
    """The same steps on smaller images."""
    cfg.train_dataloader.dataset.pipeline[1].scale = SIDE
    cfg.test_dataloader.dataset.pipeline[1].scale = SIDE + 8
    cfg.test_dataloader.dataset.pipeline[2].crop_size = SIDE
    for part in ('train', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False, batch_size=4)
    return cfg


@pytest.mark.parametrize('name', [n if n in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_trains_and_predicts(name: str, imagenet: Path) -> None:
    """A training step with a finite loss near that of a guess, which reaches every parameter, and a test step."""
    cfg = shrink(point_at(load_config(name), imagenet))
    init_default_scope(cfg.default_scope)
    check_paths(cfg, ['train', 'test'])
    check_classes(cfg, ['train', 'test'])
    model = MODELS.build(cfg.model)
    model.init_weights()
    ours = Path(name).stem in BASELINES or '_299' in name or 'dla' in name
    assert isinstance(model.backbone, Res2Net | Res2NetDLA) == ours
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    assert losses.item() == pytest.approx(math.log(1000), rel=0.3)
    assert [key for key, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []

    model.eval()
    evaluator = Evaluator(cfg.test_evaluator)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    with torch.no_grad():
        found = model.test_step(next(iter(loader)))
    evaluator.process(found)
    assert [sample.gt_label.item() for sample in found] == [0, 1, 2, 3]
    assert torch.stack([sample.pred_score for sample in found]).sum(1) == pytest.approx(torch.ones(4), abs=1e-5)
    assert set(evaluator.evaluate(4)) == {'accuracy/top1', 'accuracy/top5'}


def options(**more: Any) -> list[str]:
    """What a user sets who trains two classes of small images."""
    values = {
        'model.head.num_classes': 2,
        'train_cfg.max_epochs': 1,
        'val_evaluator.topk': 1,
        'test_evaluator.topk': 1,
        **more,
    }
    for part in ('train', 'val', 'test'):
        values[f'{part}_dataloader.dataset.type'] = 'CustomDataset'
        values[f'{part}_dataloader.num_workers'] = 0
        values[f'{part}_dataloader.persistent_workers'] = False
        values[f'{part}_dataloader.batch_size'] = 4
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]


def test_whole_run_on_two_classes_of_ones_own(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, run = 'imagenet/res2net50_18w_4s', tmp_path / 'run'
    where = ['--data', str(pets), '--work-dir', str(run)]
    crops = {'train_dataloader.dataset.pipeline.1.scale': SIDE, 'val_dataloader.dataset.pipeline.2.crop_size': SIDE}
    crops['test_dataloader.dataset.pipeline.2.crop_size'] = SIDE
    assert main(['train', config, *where, *options(**crops)]) == 0
    assert main(['test', config, str(run / 'epoch_1.pth'), *where, *options(**crops)]) == 0
    assert 'accuracy/top1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda root: [p.unlink() for p in (root / 'val/cat').iterdir()], '1 of the 2 class folders in .*val have no'),
        (lambda root: (root / 'val/dog').rename(root / 'val/dogs'), 'have different classes.*first has dog;.*dogs;'),
        (lambda root: (root / 'val').rename(root / 'test'), r'(?s)layout does not fit.*missing below .*: val'),
    ],
)
def test_mistakes_in_folders(spoil: Any, message: str, pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(pets)
    assert main(['train', 'imagenet/resnet50', '--data', str(pets), *options()]) == 2
    error = capsys.readouterr().err
    assert error.count('error: ') == 1
    assert re.search(message, error)


def test_mistakes_in_numbers_of_classes(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ['train', 'imagenet/resnet50', '--data', str(pets)]
    assert main(where) == 2
    assert re.search(r'train has 2 folders \(cat, dog\), one a class, but ImageNet has 1000', capsys.readouterr().err)
    assert main([*where, *options(**{'model.head.num_classes': 3})]) == 2
    assert 'model.head.num_classes=3, but the data set has 2 classes (cat, dog)' in capsys.readouterr().err
    assert main([*where, *options(**{'val_evaluator.topk': 5})]) == 2
    assert 'val_evaluator.topk=5, but the data set has 2 classes (cat, dog)' in capsys.readouterr().err


def test_released_weights_fit_once_they_are_converted(tmp_path: Path) -> None:
    """A file with the official names becomes one that this config loads with nothing left over."""
    backbone = Res2Net('res2net50_18w_4s')
    released = {**backbone.state_dict(), 'fc.weight': torch.rand(1000, 2048), 'fc.bias': torch.rand(1000)}
    torch.save(released, tmp_path / 'released.pth')
    files = [str(tmp_path / 'released.pth'), str(tmp_path / 'whole.pth')]
    assert main(['convert-weights', *files, '--to', 'mmpretrain']) == 0
    cfg = load('res2net50_18w_4s')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    content = torch.load(files[1], weights_only=True)
    model.load_state_dict(content.get('state_dict', content))
    assert torch.equal(model.head.fc.weight, released['fc.weight'])
    assert torch.equal(model.backbone.layer4[2].convs[1].weight, backbone.layer4[2].convs[1].weight)
