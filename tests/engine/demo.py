"""The detector of the demo, made small: whole runs on the embedded data set in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.cli import CliResult, run_cli

CONFIG = 'demo/faster_rcnn_r2n50.py'
SMALL = [
    *(f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')), 'train_dataloader.batch_size=4',
    'test_dataloader.batch_size=1', 'model.backbone.arch=res2net50_18w_4s', 'train_cfg.val_interval=1',
]  # fmt: skip


def train_demo(work_dir: Path, data: Path, *flags: str, epochs: int = 1) -> CliResult:
    options = ('--cfg-options', *SMALL, f'train_cfg.max_epochs={epochs}')
    return run_cli('train', CONFIG, '--data', data, '--work-dir', work_dir, *flags, *options)


def evaluate_demo(
    checkpoint: str | Path, work_dir: str | Path, data: str | Path, *flags: str | Path, options: Sequence[str] = ()
) -> CliResult:
    where = ('--data', data, '--work-dir', work_dir)
    return run_cli('test', CONFIG, checkpoint, *where, *flags, '--cfg-options', *SMALL, *options)


def is_drawn(path: Path) -> bool:
    """Whether an image has more than a background: several colors, and enough of others than the first one."""
    pixels = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
    return len(np.unique(pixels, axis=0)) > 10 and (pixels != pixels[0]).any(1).mean() > 0.01
