"""Whole runs of training and testing on a tiny embedded set: what they leave, how they resume, what they refuse."""

import json
from pathlib import Path

import pytest

from tests.engine.demo import SMALL, evaluate_demo
from tests.support.cli import run_cli
from tests.support.realdata import data_root


def scalars(work_dir: Path) -> list[dict]:
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_run_leaves_checkpoint_config_drawings_and_metrics(trained_demo: Path) -> None:
    assert {'epoch_1.pth', 'faster_rcnn_r2n50.py'} < {path.name for path in trained_demo.iterdir()}
    assert len(list((trained_demo / 'predictions').glob('*.png'))) == 6  # all of the six images
    assert {'coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_s'} <= set(scalars(trained_demo)[-1])


def test_testing_repeats_the_last_evaluation(trained_demo: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / 'found.pkl'
    assert evaluate_demo(trained_demo / 'epoch_1.pth', tmp_path / 'run', shapes, '--out', out).status == 0
    (metrics,) = (json.loads(file.read_text()) for file in (tmp_path / 'run').glob('2*/*.json'))
    assert metrics['coco/bbox_mAP'] == scalars(trained_demo)[-1]['coco/bbox_mAP']
    assert out.stat().st_size > 0
    flipped = evaluate_demo(trained_demo / 'epoch_1.pth', tmp_path / 'run', shapes, '--tta')
    assert (flipped.status, 'DetTTAModel' in flipped.out) == (0, True)


@pytest.mark.realdata
def test_from_scratch_needs_no_weights_and_freezes_nothing(tmp_path: Path) -> None:
    flags = ('--data', data_root('voc07_mini'), '--work-dir', tmp_path, '--from-scratch', '--skip-data-check')
    options = [option for option in SMALL if 'arch' not in option and 'batch_size' not in option]
    short = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=2', 'val_dataloader.dataset.indices=2']
    short += [f'{part}_dataloader.dataset.pipeline.{i}.scale=(250,150)' for part, i in (('train', 2), ('val', 1))]
    done = run_cli('train', 'faster_rcnn_r2n50_voc07.py', *flags, '--cfg-options', *options, *short)
    assert (done.status, 'model.backbone.frozen_stages 1 -> -1' in done.out) == (0, True)
    assert 'for 16 images per step, this run has 2' in done.out
