"""The sped-up model against the plain one: losses, gradients and predictions of whole models."""

import copy
import importlib
from functools import cache
from pathlib import Path
from typing import Any

import mmcv.ops
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import Tensor, nn

from mmres2net.deploy import fuse
from mmres2net.deploy.blocks import FusedBottle2neck
from mmres2net.engine.config import load_config, single_process_norms
from mmres2net.engine.run import build_runner
from mmres2net.engine.speed import speed_up
from mmres2net.ops import RoIAlign
from tests.support.detection import detection_sample


@pytest.fixture(autouse=True)
def _libraries_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmcv's NMS on the CPU and mmdet's pasting of masks know single precision alone."""
    extension = importlib.import_module('mmcv.ops.nms').ext_module
    nms, sample_grid = extension.nms, nn.functional.grid_sample
    monkeypatch.setattr(extension, 'nms', lambda boxes, scores, **rest: nms(boxes.float(), scores.float(), **rest))
    monkeypatch.setattr(nn.functional, 'grid_sample', lambda x, grid, **rest: sample_grid(x.to(grid), grid, **rest))


LAST = torch.channels_last
HEIGHT, WIDTH = SIZE = 64, 96


@cache
def built(name: str) -> nn.Module:
    """Return a model of a shipped config in float64, with a small backbone and few regions; copy it before use."""
    cfg = single_process_norms(load_config(name))[0]
    cfg.model.backbone.pop('arch')
    cfg.model.backbone.update(depths=(1, 1, 1, 3 if 'deeplab' in name else 1), base_width=16, init_cfg=None)
    if 'deeplab' in name:
        cfg.model.data_preprocessor.size = (HEIGHT + 1, WIDTH + 1)  # instead of 513 x 513
    else:
        cfg.model.train_cfg.rcnn.sampler.num = 32
        for proposals in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
            proposals.update(nms_pre=100, max_per_img=60)
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
        cfg.model.roi_head.bbox_head.fc_out_channels = 64
    if 'mask' in name:
        cfg.model.roi_head.mask_head.num_convs = 1
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.1)
    return model.double()


def build(name: str) -> nn.Module:
    init_default_scope('mmseg' if 'deeplab' in name else 'mmdet')
    return copy.deepcopy(built(name))


def batch(name: str) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    images = [torch.from_numpy(generator.integers(0, 256, (3, *SIZE))).double() for _ in range(2)]
    return {'inputs': images, 'data_samples': [sample(name, generator) for _ in images]}


def sample(name: str, generator: np.random.Generator) -> Any:
    facts = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE, scale_factor=(1, 1))
    if 'deeplab' in name:
        labels = PixelData(data=torch.from_numpy(generator.integers(0, 21, (1, *SIZE))))
        return importlib.import_module('mmseg.structures').SegDataSample(gt_sem_seg=labels, metainfo=facts)
    boxes = torch.tensor([[10, 8, 60, 50], [30, 20, 90, 60], [70, 5, 90, 40]]).double()
    return detection_sample(boxes, torch.arange(3), SIZE)


def train(model: nn.Module, name: str) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    torch.manual_seed(1)
    data = model.data_preprocessor(batch(name), True)
    losses = model(data['inputs'].to(next(model.parameters())), data['data_samples'], mode='loss')
    loss, log = model.parse_losses(losses)
    loss.backward()
    grads = {f'gradient of {n}': p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {key: value.detach() for key, value in log.items()} | grads


def predict(model: nn.Module, name: str) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch(name), False)
        found = model(data['inputs'].to(next(model.parameters())), data['data_samples'], mode='predict')
    if 'deeplab' in name:
        return [part.data for one in found for part in (one.seg_logits, one.pred_sem_seg)]
    keys = ('bboxes', 'scores', 'labels', *(['masks'] if 'mask' in name else []))
    return [one.pred_instances[key] for one in found for key in keys]


@pytest.mark.parametrize('name', ['faster_rcnn_r2n50.py', 'mask_rcnn_r2n50.py', 'deeplabv3plus_r2n50.py'])
def test_losses_gradients_and_predictions_are_those_of_the_plain_model(name: str) -> None:
    plain = build(name)
    fast = copy.deepcopy(plain)
    keys = list(fast.state_dict())
    assert speed_up(fast)
    assert list(fast.state_dict()) == keys
    expected, given = train(plain, name), train(fast, name)
    assert expected.keys() == given.keys()
    for key, value in expected.items():
        assert (given[key] - value).abs().max() <= 1e-9 * max(1.0, value.abs().max().item()), key
    for mine, theirs in zip(predict(fast, name), predict(plain, name), strict=True):
        assert mine.numel()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('make', [copy.deepcopy, fuse])
def test_regions_of_a_detector_in_single_precision(make: Any) -> None:
    """Fused blocks run in single precision alone, and what they return is channels_last."""
    plain = build('faster_rcnn_r2n50.py').float()
    plain.eval()
    fast = make(plain)
    speed_up(fast)
    rois = torch.tensor([[0, 3.0, 4.0, 60.0, 50.0], [1, 20.0, 8.0, 90.0, 60.0], [1, 0.0, 0.0, 8.0, 9.0]])
    x = torch.randn(2, 3, HEIGHT, WIDTH)
    results = []
    for model in (plain, fast):
        with torch.no_grad():
            maps = model.extract_feat(x)
            pooled = model.roi_head.bbox_roi_extractor(maps[:4], rois)
            results.append([*maps, pooled, *model.roi_head.bbox_head(pooled)])
    assert results[1][0].is_contiguous(memory_format=LAST)
    for got, wanted in zip(*reversed(results), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * wanted.abs().max().item())
    folds = [module._folds for module in fast.modules() if isinstance(module, FusedBottle2neck)]
    assert folds
    assert all(fold is not None and fold._convs for fold in folds)


def test_changes_are_made_and_listed() -> None:
    model = build('mask_rcnn_r2n50.py')
    kinds = {name: type(module) for name, module in model.named_modules()}
    lines = speed_up(model)
    assert '8 x mmcv.ops.RoIAlign -> mmres2net.ops.RoIAlign' in lines
    layers = [*model.roi_head.bbox_roi_extractor.roi_layers, *model.roi_head.mask_roi_extractor.roi_layers]
    assert {type(layer) for layer in layers} == {RoIAlign}
    assert [layer.spatial_scale for layer in layers] == [1 / 4, 1 / 8, 1 / 16, 1 / 32] * 2
    assert [layer.output_size for layer in layers] == [(7, 7)] * 4 + [(14, 14)] * 4
    changed = {name for name, module in model.named_modules() if type(module) is not kinds[name]}
    assert all(name.startswith(('backbone', 'roi_head.bbox', 'roi_head.mask_roi')) for name in changed)
    assert not any('RoIAlign ->' in line for line in speed_up(model))


def test_other_roi_layers_stay() -> None:
    class Doubled(mmcv.ops.RoIAlign):
        def forward(self, input: Tensor, rois: Tensor) -> Tensor:
            return super().forward(input, rois) * 2

    hooked, patched = mmcv.ops.RoIAlign(7), mmcv.ops.RoIAlign(7)
    hooked.register_forward_hook(lambda module, inputs, out: out * 2)
    patched.forward = Doubled(7).forward
    others = [mmcv.ops.RoIAlign(7, pool_mode='max'), mmcv.ops.RoIAlign(7, use_torchvision=True), Doubled(7)]
    model = nn.Module()
    model.layers = nn.ModuleList([hooked, patched, *others, mmcv.ops.RoIAlign(7, 0.25, -1, aligned=False)])
    before = list(model.layers)
    assert '1 x mmcv.ops.RoIAlign -> mmres2net.ops.RoIAlign' in speed_up(model)
    assert [layer is old for layer, old in zip(model.layers, before, strict=True)] == [True] * 5 + [False]
    last = model.layers[5]
    assert (type(last), last.sampling_ratio, last.aligned) == (RoIAlign, 0, False)


def test_other_parameters_and_devices_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Conv3d(4, 4, 3), nn.Conv2d(3, 3, 3, padding='same'))
    model.position = nn.Parameter(torch.zeros(1, 8, 4, 4))
    assert speed_up(model, 'cuda') == speed_up(model, torch.device('cuda', 1)) == []
    assert model[0].weight.is_contiguous()
    speed_up(model)
    assert model[0].weight.is_contiguous(memory_format=LAST)
    assert model[1].weight.is_contiguous()
    assert model.position.view(1, -1).shape == (1, 128)


@MODELS.register_module('SpeedTiny')
class Tiny(BaseModel):
    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(BaseDataPreprocessor(), init_cfg)
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1)
        self.deep = nn.Conv2d(64, 64, 3, padding=2, dilation=2, groups=64)
        self.norm = nn.BatchNorm2d(64)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        x = torch.relu(self.norm(self.deep(self.second(self.first(inputs.float())))))
        return {'loss': x.square().mean()} if mode == 'loss' else x


IMAGE = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def test_dilated_depthwise_convolutions_get_contiguous_inputs_once() -> None:
    plain = Tiny()
    fast = copy.deepcopy(plain)
    assert [bool(speed_up(fast)) for _ in range(2)] == [True, True]
    assert (len(fast.deep._forward_pre_hooks), fast.second.weight.is_contiguous(memory_format=LAST)) == (1, True)
    fast.load_state_dict(plain.state_dict())
    assert fast.second.weight.is_contiguous(memory_format=LAST)  # also after weights were loaded
    torch.testing.assert_close(fast(IMAGE), plain(IMAGE), rtol=1e-4, atol=1e-5)


@DATASETS.register_module('SpeedNoise')
def noise() -> list[dict[str, Tensor]]:
    return [{'inputs': IMAGE[i % 2]} for i in range(4)]


def run(folder: Path, *, plain: bool) -> Runner:
    """Train the tiny model for two steps, as the command line does it."""
    sampler, collate = {'type': 'DefaultSampler', 'shuffle': False}, {'type': 'default_collate'}
    loader = {'batch_size': 2, 'num_workers': 0, 'sampler': sampler, 'collate_fn': collate}
    cfg = dict(
        model={'type': 'SpeedTiny', 'init_cfg': {'type': 'Normal', 'layer': 'Conv2d', 'std': 0.05}},
        work_dir=str(folder),
        experiment_name=f'{folder.parent.name}-{folder.name}',
        train_dataloader={**loader, 'dataset': {'type': 'SpeedNoise'}},
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        default_scope='mmengine',
        randomness={'seed': 0},
    )
    runner = build_runner(Config(cfg), plain=plain)
    runner.train()
    return runner


def test_run_starts_from_the_same_random_weights_and_ends_at_the_same(tmp_path: Path) -> None:
    fast, plain = (run(tmp_path / name, plain=name == 'plain') for name in ('fast', 'plain'))
    assert [one.model.second.weight.is_contiguous(memory_format=LAST) for one in (fast, plain)] == [True, False]
    torch.testing.assert_close(fast.model.state_dict(), plain.model.state_dict(), rtol=1e-4, atol=1e-5)
    logs = [next(folder.glob('*/*.log')).read_text() for folder in (tmp_path / 'fast', tmp_path / 'plain')]
    assert ['(--plain' in log for log in logs] == [True, False]
