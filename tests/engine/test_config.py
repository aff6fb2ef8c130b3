"""What the flags do to a config, on small configs: each change is made, said and made on a copy."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmres2net.engine.config import (
    batch_notice,
    load_config,
    single_process_norms,
    with_amp,
    with_scaled_lr,
    without_published_weights,
    without_weights,
    work_dir_of,
)
from mmres2net.errors import UserError
from mmres2net.init_cfg import pretrained_nodes


def model() -> Config:
    backbone = dict(
        type='mmres2net.Res2Net',
        frozen_stages=1,
        norm_eval=True,
        norm_cfg=dict(type='SyncBN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    )
    head = dict(norm_cfg=dict(type='SyncBN', requires_grad=True), init_cfg=dict(type='Normal', layer='Conv2d'))
    return Config(dict(model=dict(backbone=backbone, heads=[head]), load_from='detector.pth'))


def test_from_scratch_drops_weights_and_thaws() -> None:
    cfg = model()
    before = cfg.to_dict()
    scratch, lines = without_weights(cfg)
    backbone = scratch.model.backbone
    assert (backbone.init_cfg, backbone.frozen_stages, backbone.norm_eval) == (None, -1, False)
    assert backbone.norm_cfg.requires_grad is True
    assert scratch.load_from is None
    assert scratch.model.heads[0].init_cfg == dict(type='Normal', layer='Conv2d')  # no weights are loaded by it
    assert lines == [
        'load_from detector.pth -> None',
        'model.backbone.init_cfg.checkpoint torchvision://resnet50 -> None',
        'model.backbone.frozen_stages 1 -> -1',
        'model.backbone.norm_eval True -> False',
        'model.backbone.norm_cfg.requires_grad False -> True',
    ]
    assert cfg.to_dict() == before
    assert without_weights(scratch)[1] == []


def test_a_resumed_run_needs_no_published_weights() -> None:
    cfg = model()
    resumed = without_published_weights(cfg)
    assert list(pretrained_nodes(resumed.model)) == []
    assert resumed.model.backbone.frozen_stages == 1  # the recipe stays what it was
    assert list(pretrained_nodes(cfg.model)) != []


def test_single_process_norms() -> None:
    cfg = model()
    plain, lines = single_process_norms(cfg)
    assert plain.model.backbone.norm_cfg == dict(type='BN', requires_grad=False)
    assert plain.model.heads[0].norm_cfg.type == 'BN'
    assert lines == [
        'model.backbone.norm_cfg.type SyncBN -> BN',
        'model.heads.0.norm_cfg.type SyncBN -> BN',
    ]
    assert cfg.model.backbone.norm_cfg.type == 'SyncBN'


def test_amp() -> None:
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    assert with_amp(cfg, cuda=True).optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    with pytest.raises(UserError, match='needs a GPU'):
        with_amp(cfg, cuda=False)
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        with_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))), cuda=True)


def test_scaled_learning_rate_needs_its_base() -> None:
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    assert with_scaled_lr(cfg).auto_scale_lr.enable is True
    assert cfg.auto_scale_lr.enable is False
    with pytest.raises(UserError, match='base_batch_size'):
        with_scaled_lr(Config(dict(auto_scale_lr=dict(enable=False))))


@pytest.mark.parametrize(
    ('processes', 'accumulated', 'enable', 'said'),
    [
        (8, 1, False, False),  # 8 x 2 is the base
        (4, 2, False, False),  # reached by accumulation
        (1, 1, True, False),  # will be scaled
        (1, 1, False, True),
    ],
)
def test_batch_notice(processes: int, accumulated: int, enable: bool, said: bool) -> None:
    cfg = Config(
        dict(
            auto_scale_lr=dict(enable=enable, base_batch_size=16),
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(accumulative_counts=accumulated),
        )
    )
    notice = batch_notice(cfg, processes)
    assert bool(notice) is said
    assert ('for 16 images a step, this run has 2' in notice) is said


def test_work_dir_order() -> None:
    cfg = Config(dict(work_dir='of_config'))
    assert work_dir_of(cfg, 'a/b.py', 'of_flag') == 'of_flag'
    assert work_dir_of(cfg, 'a/b.py', None) == 'of_config'
    assert work_dir_of(Config({}), 'a/b.py', None) == 'work_dirs/b'


def test_config_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='faster_rcnn_r2n50'):
        load_config('faster_rcnn_r2n5.py')
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(')
    with pytest.raises(UserError, match=r'broken\.py cannot be read as a config'):
        load_config(str(broken))
    lonely = tmp_path / 'lonely.py'
    lonely.write_text("custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)")
    with pytest.raises(UserError, match=r'lonely\.py needs a package that cannot be imported'):
        load_config(str(lonely))


def test_options_are_merged() -> None:
    cfg = load_config('faster_rcnn_r2n50', {'train_dataloader.batch_size': 3})
    assert cfg.train_dataloader.batch_size == 3
