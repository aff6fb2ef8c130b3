"""What a config does with a test image before the network: by reading the config, and by running its own pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from torch import Tensor

from mmres2net.data.layout import dataset_of_test
from mmres2net.engine.build import building, scope_of
from mmres2net.engine.source import dataset_class
from mmres2net.errors import UserError, reason_of

COLOR_TYPES = ('color', 'color_ignore_orientation')
DECODERS = ('cv2', 'pillow', 'turbojpeg')
RGB_DATASETS = ('CIFAR10', 'CIFAR100')  # of mmpretrain, which do not say so


def kind_of(step: Any) -> str:
    """Return the name of the class of a step, built or in a config, without scope."""
    kind = step.get('type') if isinstance(step, Mapping) else type(step)
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def image_steps(cfg: Config) -> list[dict[str, Any]]:
    """Return the steps of the test pipeline except those that load annotations; empty where there is no test data."""
    steps = [dict(step) for step in dataset_of_test(cfg).get('pipeline') or []]
    return [step for step in steps if loads_image(step) or not kind_of(step).startswith('Load')]


def loads_image(step: Any) -> bool:
    """Return whether a step loads the image."""
    return kind_of(step).startswith('LoadImage')


def channel_order_of(cfg: Config) -> str:
    """Return the channel order, ``rgb`` or ``bgr``, of the images that the data preprocessor gets.

    It is decided by what loads the images: the loading step of the test pipeline, else the data set, which then holds
    the pixels itself and says so by an attribute ``channel_order`` of its class. A UserError says that neither does, or
    that images are not loaded as 8-bit color images.
    """
    loader = next((step for step in image_steps(cfg) if loads_image(step)), None)
    if loader is not None:
        color = loader.get('color_type', 'color')
        decoder = loader.get('imdecode_backend') or 'cv2'
        if kind_of(loader) != 'LoadImageFromFile' or color not in COLOR_TYPES or decoder not in DECODERS:
            raise UserError(
                f'the test pipeline loads images by {loader}; supported is LoadImageFromFile with color_type '
                f'{" or ".join(COLOR_TYPES)} and imdecode_backend {", ".join(DECODERS)}'
            )
        return 'rgb' if loader.get('channel_order') == 'rgb' else 'bgr'
    kind = dataset_class(cfg)
    order = getattr(kind, 'channel_order', None)
    bases = kind.__mro__ if isinstance(kind, type) else ()
    if any(base.__name__ in RGB_DATASETS and base.__module__.startswith('mmpretrain') for base in bases):
        order = 'rgb'
    if order not in ('rgb', 'bgr'):
        raise UserError(
            'the channel order of the images is unknown: the test pipeline (test_dataloader.dataset.pipeline) loads no '
            'image file, and the class of the data set has no attribute channel_order = "rgb" or "bgr"'
        )
    return order


def applies_exif(cfg: Config) -> bool:
    """Return whether the test pipeline turns images by their EXIF orientation."""
    return not any(step.get('color_type') == 'color_ignore_orientation' for step in image_steps(cfg))


def build_steps(cfg: Config, *, from_file: bool = False) -> list[Any]:
    """Return the steps behind the one that loads the image, or with it (``from_file``), ready to be called.

    A UserError says that there are none, or that one cannot be built.
    """
    nodes = [step for step in image_steps(cfg) if from_file or not loads_image(step)]
    if not nodes:
        raise UserError('the config has no test pipeline (test_dataloader.dataset.pipeline), so images have no size')
    with scope_of(cfg), building('the test pipeline of this config'):
        return [TRANSFORMS.build(node) for node in nodes]


def run_step(step: Any, results: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return ``results`` after a step of :func:`build_steps`; a UserError names ``path`` if it fails."""
    try:
        out = step(results)
    except Exception as error:  # steps raise whatever they like
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline fails: {reason_of(error)}') from error
    if not isinstance(out, dict):
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline gives nothing for this image')
    return out


def run_steps(steps: Sequence[Any], results: dict[str, Any], path: str | Path) -> dict[str, list[Any]]:
    """Return ``results`` after ``steps`` as a batch of one; a UserError names ``path`` if it is no image (C, h, w)."""
    for step in steps:
        results = run_step(step, results, path)
    inputs = results.get('inputs')
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise UserError(f'{path}: the test pipeline does not end with one packed image (C, h, w)')
    return {'inputs': [inputs], 'data_samples': [results['data_samples']]}


def first_results(cfg: Config, path: Path) -> dict[str, Any]:
    """Return what the first step of the test pipeline gets for an image file."""
    if any(loads_image(step) for step in image_steps(cfg)):
        return {'img_path': str(path), 'img_id': 0, 'sample_idx': 0}
    return loaded_results(cfg, mmcv.imread(path, channel_order='rgb'), path)  # the data set holds the pixels


def loaded_results(cfg: Config, image: np.ndarray, path: str | Path = '') -> dict[str, Any]:
    """Return what the step behind the one that loads the image gets, for ``image`` (H, W, 3) uint8 RGB."""
    pixels = np.ascontiguousarray(image if channel_order_of(cfg) == 'rgb' else image[..., ::-1])
    if any(step.get('to_float32') for step in image_steps(cfg) if loads_image(step)):
        pixels = pixels.astype(np.float32)
    shape = image.shape[:2]
    return {'img_path': str(path), 'img_id': 0, 'sample_idx': 0, 'img': pixels, 'img_shape': shape, 'ori_shape': shape}
