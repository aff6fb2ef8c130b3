"""What the flags do to a config, on small configs: each change is made, said and made on a copy."""

import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmres2net.engine import config
from mmres2net.errors import UserError
from mmres2net.init_cfg import pretrained_nodes


def model() -> Config:
    backbone = dict(type='mmres2net.Res2Net', frozen_stages=1, norm_eval=True)
    backbone['norm_cfg'] = dict(type='SyncBN', requires_grad=False)
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    head = dict(norm_cfg=dict(type='SyncBN', requires_grad=True), init_cfg=dict(type='Normal', layer='Conv2d'))
    return Config(dict(model=dict(backbone=backbone, heads=[head]), load_from='detector.pth'))


def test_from_scratch_drops_weights_and_unfreezes() -> None:
    cfg = model()
    before = cfg.to_dict()
    scratch, lines = config.without_weights(cfg)
    backbone = scratch.model.backbone
    assert (backbone.init_cfg, backbone.frozen_stages, backbone.norm_eval) == (None, -1, False)
    assert (backbone.norm_cfg.requires_grad, scratch.load_from) == (True, None)
    assert scratch.model.heads[0].init_cfg == dict(type='Normal', layer='Conv2d')  # no weights are loaded by it
    assert (len(lines), 'model.backbone.frozen_stages 1 -> -1' in lines) == (5, True)
    assert cfg.to_dict() == before
    assert config.without_weights(scratch)[1] == []


def test_a_resumed_run_needs_no_published_weights() -> None:
    cfg = model()
    resumed = config.without_published_weights(cfg)
    assert list(pretrained_nodes(resumed.model)) == []
    assert resumed.model.backbone.frozen_stages == 1  # the recipe stays what it was
    assert list(pretrained_nodes(cfg.model)) != []


def test_single_process_norms() -> None:
    cfg = model()
    plain, lines = config.single_process_norms(cfg)
    assert plain.model.backbone.norm_cfg == dict(type='BN', requires_grad=False)
    assert plain.model.heads[0].norm_cfg.type == 'BN'
    assert lines == [f'model.{part}.norm_cfg.type SyncBN -> BN' for part in ('backbone', 'heads.0')]
    assert cfg.model.backbone.norm_cfg.type == 'SyncBN'


@pytest.mark.parametrize(('base', 'counts', 'batch'), [(16, 1, 2), (16, 3, 2), (256, 2, 32)])
def test_scaled_learning_rate_counts_accumulated_steps(base: int, counts: int, batch: int) -> None:
    wrapper = dict(accumulative_counts=counts, type='OptimWrapper')
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=base), optim_wrapper=wrapper))
    runner = SimpleNamespace(
        world_size=1, _train_dataloader=dict(batch_size=batch), param_schedulers=None, logger=logging.getLogger('scale')
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    Runner.scale_lr(runner, OptimWrapper(optimizer), config.with_scaled_lr(cfg).auto_scale_lr)
    assert optimizer.param_groups[0]['lr'] == pytest.approx(batch * counts / base)
    assert cfg.auto_scale_lr.enable is False


def test_no_workers_need_no_options_of_workers() -> None:
    loader = dict(num_workers=0, persistent_workers=True, prefetch_factor=4, batch_size=2)
    cfg = Config(dict(train_dataloader=loader, val_dataloader=dict(num_workers=2, persistent_workers=True)))
    changed, lines = config.without_idle_workers(cfg)
    assert changed.train_dataloader == dict(num_workers=0, batch_size=2)
    assert (changed.val_dataloader, cfg.train_dataloader, len(lines)) == (cfg.val_dataloader, loader, 2)


def test_every_config_stops_at_losses_of_nan() -> None:
    def with_finite_loss(cfg: Config) -> Config:
        return config.with_hook(cfg, 'finite_loss', 'mmres2net.FiniteLossHook')

    added = with_finite_loss(Config({})).default_hooks.finite_loss
    assert HOOKS.build(dict(added)).patience == 10
    own = Config(dict(default_hooks=dict(finite_loss=dict(type='mmres2net.FiniteLossHook', patience=3), logger=None)))
    assert with_finite_loss(own).default_hooks == own.default_hooks
    more = with_finite_loss(Config(dict(default_hooks=dict(finite_loss=dict(patience=3)))))
    assert HOOKS.build(dict(more.default_hooks.finite_loss)).patience == 3
    assert with_finite_loss(Config(dict(default_hooks=dict(finite_loss=None)))).default_hooks == {}


def test_settings_that_nothing_reads_are_refused() -> None:
    for option in ('optim_wraper.optimizer.lr', 'lr'):
        with pytest.raises(UserError, match=option):
            config.load_config('faster_rcnn_r2n50', {option: 0.1})
    assert config.load_config('faster_rcnn_r2n50', {'compile': True, 'load_from': 'a.pth'}).load_from == 'a.pth'


BROKEN = {
    'lonely.py': "custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)",
    'syntax.py': 'model = dict(', 'itself.py': "_base_ = 'itself.py'", 'raises.py': 'raise RuntimeError("no")',
    'text.txt': 'model = 1', 'code.yaml': '!!python/object/apply:os.system ["touch MARKER"]',
    'name.yaml': 'model: !!python/name:os.system', 'bomb.yaml': 'a: &a [x]\nb: [*a, *a]', 'loop.yaml': 'model: &a [*a]',
    'deep.json': '[' * 100_000, 'deep.yaml': '[' * 100_000, 'number.json': '{"a": ' + '9' * 10_000 + '}',
    'list.json': '[1, 2]', 'binary.py': '\0\1\2', 'empty.yaml': '',
}  # fmt: skip


@pytest.mark.parametrize('name', BROKEN)
def test_files_that_are_no_configs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / 'marker'
    (tmp_path / name).write_text(BROKEN[name].replace('MARKER', str(marker)))
    with pytest.raises(UserError, match=re.escape(name)):
        config.load_config(str(tmp_path / name))
    assert not marker.exists()


def test_yaml_in_a_chain_of_configs_is_data_as_well(tmp_path: Path) -> None:
    marker = tmp_path / 'marker'
    (tmp_path / 'base.yaml').write_text(f'a: !!python/object/apply:os.system ["touch {marker}"]')
    (tmp_path / 'top.py').write_text("_base_ = 'base.yaml'")
    with pytest.raises(UserError, match='python/object'):
        config.load_config(str(tmp_path / 'top.py'))
    assert not marker.exists()
    (tmp_path / 'base.yaml').write_text('a: {b: 1.5, c: [true, null, text]}\n')
    read = config.load_config(str(tmp_path / 'top.py'))
    assert read.to_dict() == dict(a=dict(b=1.5, c=[True, None, 'text']))


def test_shipped_configs_are_inherited_by_name(tmp_path: Path) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = ['mmres2net::demo/faster_rcnn_r2n50']\ntrain_cfg = dict(max_epochs=1)\n")
    own, shipped = config.load_config(str(mine)), config.load_config('mmres2net::demo/faster_rcnn_r2n50.py')
    assert (own.train_cfg.max_epochs, own.model) == (1, shipped.model)
    mine.write_text("_base_ = 'mmres2net::faster_rcnn_r2n5'")
    with pytest.raises(UserError, match='faster_rcnn_r2n50'):
        config.load_config(str(mine))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.py')
    for name, kind in ((tmp_path / 'pipe.py', 'pipe'), (tmp_path, 'folder'), ('/dev/zero', 'device')):
        with pytest.raises(UserError, match=kind):
            config.load_config(str(name))
    with pytest.raises(UserError, match='faster_rcnn_r2n50'):
        config.load_config('faster_rcnn_r2n5.py')
