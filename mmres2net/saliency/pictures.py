"""Saliency maps as pictures: 8-bit grey at the image's own size, which is also what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.registry import HOOKS

FOLDER = 'saliency'
SLACK = 1e-4  # rounding of half precision may carry a probability that much out of [0, 1]


def grey_map(probabilities: torch.Tensor, name: str) -> np.ndarray:
    """Return a map as a grey picture: ``round(255 p)``.

    Args:
        probabilities: (1, H, W) or (H, W), in [0, 1].
        name: Of the image, for errors.

    Returns:
        (H, W) of uint8.

    Raises:
        UserError: More than one channel, NaN, or values that are no probabilities.
    """
    values = probabilities.detach().cpu().double()
    if values.dim() == 3 and values.shape[0] == 1:
        values = values[0]
    if values.dim() != 2 or not values.numel():
        raise UserError(
            f'{name}: predicted as {tuple(probabilities.shape)}, not (1, H, W): a saliency model has one output '
            'channel (num_classes=2, out_channels=1 of the heads)'
        )
    if not torch.isfinite(values).all():
        raise UserError(f'{name}: the prediction holds NaN or infinity: has the training diverged?')
    low, high = float(values.min()), float(values.max())
    if low < -SLACK or high > 1 + SLACK:
        raise UserError(
            f'{name}: predicted values go from {low:.3g} to {high:.3g}, but a saliency map has probabilities, 0 to 1: '
            'seg_logits has to come out of a sigmoid'
        )
    return np.asarray((255 * values.clamp(0, 1)).round().to(torch.uint8))


@HOOKS.register_module()
class SaliencyMapsHook(Hook):
    """Write what a test predicts to ``WORK_DIR/saliency/DATASET/NAME.png``, 8-bit grey at the image's own size.

    NAME is the image's without suffix, DATASET the sample's ``dataset_name``; samples without one lie in
    ``WORK_DIR/saliency`` itself. A picture is whole or absent, and a later test replaces it. Every process writes what
    it predicts. Annotations are not needed: for images without, set ``format_only=True`` of ``SaliencyMetric``.
    """

    def before_test(self, runner: Runner) -> None:
        """Check that no two images of the test set have the same picture.

        Raises:
            UserError: Two have.
        """
        dataset = runner.test_dataloader.dataset
        taken: dict[Path, str] = {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            place = picture_of(info['img_path'], info.get('dataset_name'))
            other = taken.setdefault(place, info['img_path'])
            if other != info['img_path']:
                raise UserError(
                    f'{other} and {info["img_path"]} would both be written to {FOLDER}/{place}: '
                    'give their data sets different values of dataset_name, or the images different names'
                )

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write the maps of a batch."""
        for sample in outputs or ():
            place = Path(runner.work_dir) / FOLDER / picture_of(sample.img_path, sample.get('dataset_name'))
            write_grey(place, grey_map(sample.seg_logits.data, sample.img_path))


def picture_of(img_path: str, dataset_name: str | None) -> Path:
    """Return where the map of an image lies, below the folder of maps."""
    return Path(dataset_name or '') / f'{Path(img_path).stem}.png'


def write_grey(path: Path, grey: np.ndarray) -> None:
    """Write (H, W) of uint8 as a PNG that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An image that a sampler shows twice may be written by two processes at once.
    draft = path.with_name(f'.{path.name}.{get_rank()}.part')
    try:
        Image.fromarray(grey).save(draft, format='png')
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
