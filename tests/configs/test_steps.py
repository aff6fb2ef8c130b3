"""Each config trains a step and predicts on small images of its data set: one of each kind, and all by -m slow."""

import io
import math
import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from mmres2net.data.check.before import check_before_training
from mmres2net.data.layout import point_at, walk
from mmres2net.engine.build import build_dataset, build_model, scope_of
from mmres2net.engine.config import load_config, single_process_norms, without_weights
from tests.configs.pairs import CONFIGS
from tests.configs.test_recipes import SETS
from tests.support.realdata import cifar100_mini, data_root

KINDS = {
    'cifar10/res2next20_2c7w4s.py', 'cifar100/res2next29_6c24w4s.py', 'imagenet/res2net50_26w_4s_smooth.py',
    'dss_r2n50.py', 'deeplabv3plus_r2n50.py',
    'faster_rcnn_r2n50.py', 'faster_rcnn_r2n50_c4_voc07.py', 'mask_rcnn_r2n50_paper.py',
    'demo/deeplabv3plus_r2n50.py', 'demo/dss_r2n50.py', 'demo/mask_rcnn_r2n50.py',
}  # fmt: skip
SMALL, SIDE = (240, 180), 80


def write_classes(root: Path, names: Iterable[str], *, images: int = 1, suffix: str = '.JPEG') -> Path:
    """Write ``train`` and ``val`` with a folder of small images for each class, in ImageNet's layout."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file, 'JPEG')
    for part, name in product(('train', 'val'), names):
        (root / part / name).mkdir(parents=True)
        for i in range(images):
            (root / part / name / f'{i}{suffix}').write_bytes(file.getvalue())
    return root


def write_saliency(root: Path, shapes: Path) -> Path:
    """Lay out the five data sets as tools/prepare_data.py does, each with the embedded test images."""
    names = (shapes / 'saliency/test.txt').read_text().split()
    for data in ('MSRA-B', *SETS):
        for folder in ('images', 'masks'):
            (root / data / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(shapes / f'saliency/masks/{name}.png', root / data / 'masks')
            if data == 'HKU-IS':
                Image.open(shapes / f'saliency/images/{name}.jpg').save(root / data / f'images/{name}.png')
            else:
                shutil.copy(shapes / f'saliency/images/{name}.jpg', root / data / 'images')
    for part in ('train', 'val'):
        (root / 'MSRA-B' / f'{part}.txt').write_text('\n'.join(names))
    return root


def data_of(name: str, shapes: Path, folder: Path) -> Path:
    if name.startswith('imagenet/'):
        return write_classes(folder, [f'n{i:08d}' for i in range(1000)])
    if name.startswith('cifar10/'):
        return write_classes(folder, load_config(name).metainfo.classes, images=2, suffix='.jpg')
    if name.startswith('cifar100/'):
        return cifar100_mini(folder)
    if name.startswith('dss'):
        return write_saliency(folder, shapes)
    if 'photos' in name:
        return data_root('ecssd_mini')
    if name.startswith('demo/'):
        return shapes
    return data_root('voc07_mini' if 'voc07' in name else 'voc12_mini' if 'deeplab' in name else 'coco_mini')


def shrink(cfg: Config) -> Config:
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
        for _, step in walk(cfg[f'{part}_dataloader'].dataset, ''):
            if step.get('type') == 'Resize' and max(step.scale) > max(SMALL):
                step.scale = SMALL
            elif step.get('type') == 'RandomCrop' and max(np.atleast_1d(step.crop_size)) > 161:
                step.crop_size = (161, 161)
            elif step.get('type') in ('RandomResizedCrop', 'ResizeEdge'):
                step.scale = SIDE
            elif step.get('type') == 'CenterCrop':
                step.crop_size = SIDE
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = (161, 161)
    for _, node in walk(cfg.model, 'model'):
        if node.get('type') == 'RoIAlign':
            node['sampling_ratio'] = 2
        elif node.get('type') == 'mmres2net.DSSHead':
            node['channels'] = (8, 8, 8, 8, 8)
    if 'rcnn' in cfg.model.get('train_cfg', {}):
        cfg.model.train_cfg.rcnn.sampler.num = 32
        cfg.model.test_cfg.rpn.max_per_img = 50
    cfg.train_dataloader.batch_size = 2
    return cfg


def train_step(cfg: Config) -> tuple[nn.Module, float]:
    """Train a step; the loss is finite and reaches every parameter that is trained."""
    model = build_model(cfg, init_weights=True)
    with scope_of(cfg):
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    losses.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    return model.eval(), losses.item()


def predict(model: nn.Module, cfg: Config) -> Any:
    sample = build_dataset(cfg, cfg.test_dataloader.dataset)[0]
    with torch.no_grad():
        return model.test_step({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})[0]


def check_detections(found: Any, masks: bool) -> None:
    height, width = found.ori_shape
    boxes = found.pred_instances.bboxes
    assert boxes.shape[0] <= 100
    assert bool((boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all())
    assert ('masks' in found.pred_instances) == masks
    if masks:
        assert found.pred_instances.masks.shape == (len(boxes), height, width)


def evaluate(model: nn.Module, cfg: Config) -> dict[str, float]:
    with scope_of(cfg):
        loader, evaluator = Runner.build_dataloader(cfg.test_dataloader), Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            evaluator.process(data_batch=batch, data_samples=model.test_step(batch))
    return evaluator.evaluate(len(loader.dataset))


def check_saliency(metrics: dict[str, float], sets: tuple[str, ...]) -> None:
    assert {key.rpartition('/')[0] for key in metrics} == set(sets)
    assert all(0 < metrics[f'{data}/{key}'.strip('/')] < 1 for data in sets for key in ('maxF', 'MAE'))
    assert len({round(metrics[f'{data}/MAE'.strip('/')], 6) for data in sets}) == 1


@pytest.mark.realdata
@pytest.mark.parametrize('name', [n if n in KINDS else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_trains_and_predicts_on_its_data(name: str, shapes: Path, tmp_path: Path) -> None:
    cfg = point_at(without_weights(load_config(name))[0], data_of(name, shapes, tmp_path / 'data'))
    cfg = single_process_norms(shrink(cfg))[0]
    with scope_of(cfg):
        check_before_training(cfg, ['train', 'test'])
    model, loss = train_step(cfg)
    if 'dss' in name:
        assert loss == pytest.approx(6 * math.log(2), rel=0.5)  # six maps that know nothing yet
        check_saliency(evaluate(model, cfg), SETS if name.startswith('dss') else ('',))
        return
    found = predict(model, cfg)
    if 'rcnn' in name:
        check_detections(found, masks='mask_rcnn' in name)
    elif 'deeplab' in name:
        assert found.pred_sem_seg.data.shape == (1, *found.ori_shape)
        assert int(found.pred_sem_seg.data.max()) < model.decode_head.num_classes
    else:
        classes = cfg.model.head.get('num_classes', 1000)
        assert loss == pytest.approx(math.log(classes), rel=0.35)  # that of a guess
        assert found.pred_score.shape == (classes,)
        assert float(found.pred_score.sum()) == pytest.approx(1, abs=1e-5)
