"""Saliency maps as 8-bit grey images of the size of the input image; the metrics are computed on the same values."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.files import atomic_path
from mmres2net.registry import HOOKS

FOLDER = 'saliency'
SLACK = 1e-4  # in half precision, rounding may move a probability this far out of [0, 1]


def grey_map(probabilities: torch.Tensor, name: str) -> np.ndarray:
    """Return probabilities (1, H, W) or (H, W) as grey values ``round(255 p)``, (H, W); others are a UserError."""
    values = probabilities.detach().cpu().double()
    values = values[0] if values.dim() == 3 and values.shape[0] == 1 else values
    if values.dim() != 2 or not values.numel():
        what = f'{name}: the prediction has shape {tuple(probabilities.shape)}, not (1, H, W)'
        raise UserError(f'{what}; a saliency model has one output channel (num_classes=2, out_channels=1 in the heads)')
    if not torch.isfinite(values).all():
        raise UserError(f'{name}: the prediction has NaN or infinite values; the training has probably diverged')
    low, high = float(values.min()), float(values.max())
    if low < -SLACK or high > 1 + SLACK:
        what = f'{name}: predicted values are in {low:.3g} to {high:.3g}'
        raise UserError(f'{what}, but a saliency map has probabilities in 0 to 1; apply a sigmoid to seg_logits')
    return np.asarray((255 * values.clamp(0, 1)).round().to(torch.uint8))


@HOOKS.register_module()
class SaliencyMapsHook(Hook):
    """Write the predictions of a test to ``WORK_DIR/saliency/DATASET/NAME.png``, as 8-bit grey of the image's size.

    NAME is that of the image, without suffix; DATASET is the sample's ``dataset_name`` (without one, the file is in
    ``WORK_DIR/saliency``). Files are written atomically and overwritten by later tests; every process writes its own.
    Annotations are not needed: for images without, set ``format_only=True`` of ``SaliencyMetric``.
    """

    def before_test(self, runner: Runner) -> None:
        """Raise a UserError if two images of the test set would be written to the same file."""
        dataset = runner.test_dataloader.dataset
        taken: dict[Path, str] = {}
        for info in map(dataset.get_data_info, range(len(dataset))):
            image, path = info['img_path'], map_path(info['img_path'], info.get('dataset_name'))
            other = taken.setdefault(path, image)
            if other != image:
                what = f'{other} and {image} would both be written to {FOLDER}/{path}'
                raise UserError(f'{what}: give their data sets another dataset_name, or the images other names')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write the maps of a batch."""
        for sample in outputs or ():
            path = Path(runner.work_dir) / FOLDER / map_path(sample.img_path, sample.get('dataset_name'))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, sync=False) as draft:
                Image.fromarray(grey_map(sample.seg_logits.data, sample.img_path)).save(draft, format='png')


def map_path(img_path: str, dataset_name: str | None) -> Path:
    """Return the path of the map of an image, relative to the folder of maps."""
    return Path(dataset_name or '') / f'{Path(img_path).stem}.png'
