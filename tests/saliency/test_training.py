"""DSS learns: on real photographs it never saw it does better than any map that does not look at them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmres2net.cli import main
from mmres2net.saliency import SaliencyDataset, SaliencyMetric
from tests.support.realdata import data_root

MARGIN = 0.02  # of max-F: a third of the recipe has to be that much better than the centre
EPOCHS = 8
SIGMAS = (0.15, 0.25, 0.4)  # widths of the centre prior, in widths of the image


def centre(height: int, width: int, sigma: float) -> torch.Tensor:
    """A Gaussian around the middle of the image, (1, height, width), 1 at its top."""
    y, x = ((torch.arange(n) - (n - 1) / 2) / n for n in (height, width))
    return torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * sigma**2))[None]


def prior_figures(dataset: SaliencyDataset, sigma: float) -> dict[str, float]:
    metric = SaliencyMetric()
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        truth = torch.from_numpy(dataset.read_mask(info['seg_map_path']).astype(np.int64))[None]
        logits = dict(data=centre(*truth.shape[1:], sigma))
        metric.process(None, [dict(seg_logits=logits, gt_sem_seg=dict(data=truth), img_path=info['img_path'])])
    return metric.evaluate(len(dataset))


def train(config: str, data: Path, folder: Path, *options: str) -> dict[str, Any]:
    flags = ['--data', str(data), '--work-dir', str(folder / 'run'), '--cfg-options', *options]
    assert main(['train', config, *flags]) == 0
    (scalars,) = folder.glob('run/*/vis_data/scalars.json')
    return json.loads(scalars.read_text().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.realdata
def test_beats_the_centre_on_photographs(tmp_path: Path) -> None:
    data = data_root('ecssd_mini')
    options = [
        *(f'train_cfg.{key}={EPOCHS}' for key in ('max_epochs', 'val_interval')),
        *(f'param_scheduler.1.{key}={EPOCHS}' for key in ('end', 'T_max')),
    ]
    final = train('demo/dss_r2n50_photos.py', data, tmp_path, *options)
    dataset = SaliencyDataset(dataset_name='photos', data_root=str(data), ann_file='test.txt')
    prior = max(prior_figures(dataset, sigma)['maxF'] for sigma in SIGMAS)
    assert final['maxF'] > prior + MARGIN
