"""Whole runs of training and testing on a tiny embedded set: what they leave, how they resume, what they refuse."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mmres2net.cli import main
from tests.support.realdata import data_root

CONFIG = 'demo/faster_rcnn_r2n50.py'
SMALL = [
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
    'model.backbone.arch=res2net50_18w_4s',
    'train_cfg.val_interval=1',
]


def train(work_dir: Path, data: Path, *flags: str, epochs: int = 1) -> int:
    options = [*SMALL, f'train_cfg.max_epochs={epochs}']
    return main(['train', CONFIG, '--data', str(data), '--work-dir', str(work_dir), *flags, '--cfg-options', *options])


def test(work_dir: Path, data: Path, checkpoint: str, *flags: str) -> int:
    where = ['--data', str(data), '--work-dir', str(work_dir)]
    return main(['test', CONFIG, str(work_dir / checkpoint), *where, *flags, '--cfg-options', *SMALL])


test.__test__ = False  # a helper, not a test


@pytest.fixture(scope='module')
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a run of one epoch."""
    work_dir = tmp_path_factory.mktemp('runs') / 'first'
    assert train(work_dir, shapes) == 0
    return work_dir


def scalars(work_dir: Path) -> list[dict]:
    """All logged scalars, oldest run first."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_run_leaves_checkpoint_config_drawings_and_metrics(trained: Path) -> None:
    assert (trained / 'epoch_1.pth').is_file()
    assert (trained / 'faster_rcnn_r2n50.py').is_file()
    assert len(list((trained / 'predictions').glob('*.png'))) == 6  # all of the six images
    metrics = scalars(trained)[-1]
    assert {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_s'} <= set(metrics)


def test_testing_repeats_the_last_evaluation(trained: Path, shapes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'found.pkl'
    assert test(trained, shapes, 'epoch_1.pth', '--out', str(out)) == 0
    trained_ap = scalars(trained)[-1]['coco/bbox_mAP']
    logged = [json.loads(file.read_text()) for file in trained.glob('*/*.json') if 'coco/bbox_mAP' in file.read_text()]
    assert trained_ap in [entry['coco/bbox_mAP'] for entry in logged]
    assert out.stat().st_size > 0


def test_resume_continues_where_the_run_stopped(trained: Path, shapes: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / 'again'
    shutil.copytree(trained, work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    assert train(work_dir, shapes, '--resume', epochs=2) == 0
    first, second = (torch.load(work_dir / f'epoch_{i}.pth', weights_only=False) for i in (1, 2))
    assert (first['meta']['iter'], second['meta']['iter']) == (3, 6)
    steps = [state['step'].item() for state in second['optimizer']['state'].values()]
    assert set(steps) == {6.0}  # Adam's own count continued as well


def test_nothing_is_trained_on_data_that_does_not_fit(shapes: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / 'broken'
    shutil.copytree(shapes, broken)
    image = sorted((broken / 'train2017').iterdir())[0]
    image.write_bytes(image.read_bytes()[:300])
    assert train(tmp_path / 'run', broken) == 2
    assert str(image) in capsys.readouterr().err
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert main(['train', 'faster_rcnn_r2n50.py', '--data', str(shapes), '--work-dir', str(tmp_path / 'run')]) == 2
    assert '80' in capsys.readouterr().err


@pytest.mark.realdata
def test_from_scratch_needs_no_weights_and_freezes_nothing(tmp_path: Path, capsys) -> None:
    flags = ['--data', str(data_root('voc07_mini')), '--work-dir', str(tmp_path), '--from-scratch', '--skip-data-check']
    options = [option for option in SMALL if 'arch' not in option and 'batch_size' not in option]
    short = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=2', 'val_dataloader.dataset.indices=2']
    assert main(['train', 'faster_rcnn_r2n50_voc07.py', *flags, '--cfg-options', *options, *short]) == 0
    text = capsys.readouterr().out
    assert 'model.backbone.frozen_stages 1 -> -1' in text
    assert 'for 16 images per step, this run has 2' in text
