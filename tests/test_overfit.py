"""Learning sixteen real photographs by heart: only if targets, losses, decoding and evaluation agree can AP be high."""

import json
from pathlib import Path

import pytest

from mmres2net.cli import main
from tests.realdata import data_root

IMAGES = 16
SCALE = '(192,144)'
EPOCHS = 60


def options() -> list[str]:
    """Return the settings that make of a recipe a run on its first sixteen training images, with the recipe's model."""
    shared = ['batch_size=4', 'num_workers=0', 'persistent_workers=False', f'dataset.indices={IMAGES}']
    loaders = [f'{part}_dataloader.{option}' for part in ('train', 'val') for option in shared]
    return [
        *loaders,
        'val_dataloader.dataset.ann_file=VOC2007/ImageSets/Main/trainval.txt',
        f'train_dataloader.dataset.pipeline.2.scale={SCALE}',
        f'val_dataloader.dataset.pipeline.1.scale={SCALE}',
        'train_dataloader.dataset.pipeline.3.prob=0.0',
        # What random weights need to learn in so few steps
        'model.backbone.zero_init_residual=True',
        'model.neck.norm_cfg.type=BN',
        'model.roi_head.bbox_head.reg_class_agnostic=True',
        'model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio=2',
        'model.train_cfg.rpn_proposal.max_per_img=200',
        'model.train_cfg.rcnn.sampler.num=64',
        'optim_wrapper.optimizer._delete_=True',
        'optim_wrapper.optimizer.type=AdamW',
        'optim_wrapper.optimizer.lr=0.0008',
        f'train_cfg.max_epochs={EPOCHS}',
        f'train_cfg.val_interval={EPOCHS}',
        f'default_hooks.checkpoint.interval={EPOCHS}',
        'default_hooks.logger.interval=20',
        f'param_scheduler.1.end={EPOCHS}',
        f'param_scheduler.1.milestones=[{EPOCHS - 10}]',
        'param_scheduler.0.end=50',
    ]


@pytest.mark.slow
@pytest.mark.realdata
def test_sixteen_photographs_are_learned_by_heart(tmp_path: Path) -> None:
    voc = str(data_root('voc07_mini'))
    flags = ['--data', voc, '--work-dir', str(tmp_path), '--from-scratch', '--skip-data-check']
    assert main(['train', 'faster_rcnn_r2n50_voc07.py', *flags, '--cfg-options', *options()]) == 0
    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    final = json.loads(scalars.read_text().splitlines()[-1])
    assert final['pascal_voc/mAP'] > 0.8
