"""``--backbone ARCH``: where the run and the swapped config go, what --cfg-options mean, and a run with testing."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmres2net.engine.config import load_swapped, write_config
from mmres2net.errors import UserError

ARCH = 'res2net50_26w_4s'
DETECTOR = """
default_scope = 'mmdet'
model = dict(
    backbone=dict(
        type='ResNet', depth=50, frozen_stages=1, norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    data_preprocessor=dict(mean=[1.0], std=[2.0], bgr_to_rgb=False),
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'detector.py').write_text(DETECTOR)
    return tmp_path


def load(training: bool = True, **given: Any) -> Config:
    rest = {'config': 'detector.py', 'backbone': ARCH, 'cfg_options': None, 'work_dir': None, 'from_scratch': False}
    return load_swapped(Namespace(**{**rest, **given}), training=training)[0]


def test_work_folder_is_not_that_of_the_config(folder: Path) -> None:
    assert load().work_dir == f'work_dirs/detector-{ARCH}'
    assert load(backbone='res2net50').work_dir == f'work_dirs/detector-{ARCH}'  # an alias is the same network
    assert load(training=False).work_dir == f'work_dirs/detector-{ARCH}'
    assert load(work_dir='mine').work_dir == 'mine'
    (folder / 'own.py').write_text(DETECTOR + "work_dir = 'out/baseline'\n")
    assert load(config='own.py').work_dir == f'out/baseline-{ARCH}'


def test_written_config_is_the_run_and_is_not_overwritten_by_it(folder: Path) -> None:
    cfg = load()
    path = write_config(cfg)
    assert path == Path(f'work_dirs/detector-{ARCH}/detector-{ARCH}.py')
    assert Config.fromfile(path).to_dict() == cfg.to_dict()
    assert Path(cfg.filename).name == f'detector-{ARCH}_as_run.py'  # what MMEngine calls its copy
    (folder / 'file').touch()
    with pytest.raises(UserError, match='--work-dir file'):
        write_config(load(work_dir='file'))


def test_options_of_the_old_backbone_are_carried_over_and_those_of_the_new_hold() -> None:
    new = {'frozen_stages': 3, 'norm_cfg.eps': 1e-3, 'stage_pool': 'mmdet', 'init_cfg.checkpoint': 'mine.pth'}
    options = {f'model.backbone.{key}': value for key, value in new.items()}
    options |= {'model.data_preprocessor.mean': [7.0], 'load_from': 'whole.pth'}
    cfg = load(cfg_options=options)
    backbone = cfg.model.backbone
    assert (backbone.frozen_stages, backbone.norm_cfg.eps, backbone.stage_pool) == (3, 1e-3, 'mmdet')
    assert backbone.init_cfg == {'type': 'mmres2net.Pretrained', 'checkpoint': 'mine.pth'}
    assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std) == ([7.0], [58.395, 57.12, 57.375])
    assert cfg.load_from == 'whole.pth'
    with pytest.raises(UserError, match='--cfg-options does not fit'):
        load(cfg_options={'model.backbone.arch.deeper': 1})


def test_from_scratch_freezes_no_noise_not_even_in_the_file() -> None:
    cfg = load(from_scratch=True, backbone='res2net50_18w_4s')
    backbone = Config.fromfile(write_config(cfg)).model.backbone
    assert (backbone.frozen_stages, backbone.norm_eval, backbone.norm_cfg.requires_grad) == (-1, False, True)
    assert 'init_cfg' not in backbone
    # testing needs no published weights, and sees the same network
    tested = load(training=False, backbone='res2net50_18w_4s')
    assert tested.model.backbone.arch == cfg.model.backbone.arch
    assert tested.model.data_preprocessor == cfg.model.data_preprocessor
    with pytest.raises(UserError, match='has no published weights'):
        load(backbone='res2net50_18w_4s')
