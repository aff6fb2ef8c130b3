"""What a config does with a test image before the network: by reading the config, and by running its own pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmcv
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmres2net.data.layout import dataset_of_test
from mmres2net.engine.build import scope_of
from mmres2net.errors import UserError, reason_of
from mmres2net.export.source import dataset_class
from mmres2net.predict.images import PILLOW_FILTERS

GEOMETRY = ('Resize', 'ResizeEdge', 'CenterCrop')
COLOR_TYPES = ('color', 'color_ignore_orientation')
DECODERS = ('cv2', 'pillow', 'turbojpeg')
RGB_DATASETS = ('CIFAR10', 'CIFAR100')  # of mmpretrain, which do not say so
RESIZE_KEYS = {'type', 'scale', 'keep_ratio', 'edge', 'backend', 'interpolation', 'clip_object_border'}


def kind_of(step: Mapping[str, Any]) -> str:
    """Return the name of a step's class, without scope."""
    kind = step.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def image_steps(cfg: Config) -> list[dict[str, Any]]:
    """Return the steps of the test pipeline except those that load annotations; empty where there is no test data."""
    steps = [dict(step) for step in dataset_of_test(cfg).get('pipeline') or []]
    return [step for step in steps if _loads_image(step) or not kind_of(step).startswith('Load')]


def _loads_image(step: Mapping[str, Any]) -> bool:
    return kind_of(step).startswith('LoadImage')


def channel_order_of(cfg: Config) -> str:
    """Return the channel order, ``rgb`` or ``bgr``, of the images that the data preprocessor gets.

    It is decided by what loads the images: the loading step of the test pipeline, else the data set, which then holds
    the pixels itself and says so by an attribute ``channel_order`` of its class. A UserError says that neither does, or
    that images are not loaded as 8-bit color images.
    """
    loader = next((step for step in image_steps(cfg) if _loads_image(step)), None)
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
    if any(base.__name__ in RGB_DATASETS and base.__module__.startswith('mmpretrain') for base in _bases(kind)):
        order = 'rgb'
    if order not in ('rgb', 'bgr'):
        raise UserError(
            'the channel order of the images is unknown: the test pipeline (test_dataloader.dataset.pipeline) loads no '
            'image file, and the class of the data set has no attribute channel_order = "rgb" or "bgr"'
        )
    return order


def _bases(kind: Any) -> tuple[type, ...]:
    return kind.__mro__ if isinstance(kind, type) else ()


def applies_exif(cfg: Config) -> bool:
    """Return whether the test pipeline turns images by their EXIF orientation."""
    return not any(step.get('color_type') == 'color_ignore_orientation' for step in image_steps(cfg))


def transforms_of(cfg: Config) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return the geometric transforms of the test pipeline, see :func:`mmres2net.predict.images.apply_transforms`.

    Where a runner cannot do them, there are none, and the second value is the reason.
    """
    transforms = []
    for step in image_steps(cfg):
        kind = kind_of(step)
        if _loads_image(step) or kind.startswith('Pack'):
            continue
        transform = _resize(step) if kind.startswith('Resize') else _crop(step) if kind == 'CenterCrop' else None
        if transform is None:
            return (), f'the step {step} of the test pipeline is not supported'
        transforms.append(transform)
    return tuple(transforms), ''


def _resize(step: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, backend = kind_of(step), step.get('backend', 'cv2')
    interpolation, scale = step.get('interpolation', 'bilinear'), step.get('scale')
    if kind not in ('Resize', 'ResizeEdge') or scale is None or set(step) - RESIZE_KEYS:
        return None
    known = PILLOW_FILTERS if backend == 'pillow' else ('bilinear',) if backend == 'cv2' else ()
    if interpolation not in known:
        return None
    out: dict[str, Any] = {'type': kind}
    if kind == 'ResizeEdge':
        out |= {'scale': int(scale), 'edge': step.get('edge', 'short')}
    else:
        pair = (scale, scale) if isinstance(scale, int) else tuple(int(value) for value in scale)
        out |= {'scale': pair, 'keep_ratio': bool(step.get('keep_ratio', False))}
    return out | ({'filter': interpolation} if backend == 'pillow' else {})


def _crop(step: Mapping[str, Any]) -> dict[str, Any] | None:
    size = step.get('crop_size')
    if size is None or step.get('auto_pad') or set(step) - {'type', 'crop_size', 'auto_pad', 'clip_object_border'}:
        return None
    return {'type': 'CenterCrop', 'crop_size': (size, size) if isinstance(size, int) else tuple(size)}


def run_step(step: Mapping[str, Any], results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return ``results`` after a step of a pipeline; a UserError names ``path`` if it fails or gives nothing."""
    try:
        out = TRANSFORMS.build(dict(step))(results)
    except Exception as error:  # steps raise whatever they like
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline fails: {reason_of(error)}') from error
    if not isinstance(out, dict):
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline gives nothing for this image')
    return out


def first_results(cfg: Config, path: Path) -> dict[str, Any]:
    """Return what the first step of the test pipeline gets for an image file."""
    results: dict[str, Any] = {'img_path': str(path), 'img_id': 0, 'sample_idx': 0}
    if not any(_loads_image(step) for step in image_steps(cfg)):  # the data set holds the pixels
        image = mmcv.imread(path, channel_order=channel_order_of(cfg))
        results |= {'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
    return results


def run_pipeline(cfg: Config, path: Path, *, skip_geometry: bool = False) -> dict[str, Any]:
    """Return an image file as a batch of one, by the config's own test pipeline without annotations.

    ``skip_geometry`` leaves out resizing and cropping. A UserError says that a step fails, or that the pipeline does
    not end with one image.
    """
    results = first_results(cfg, path)
    with scope_of(cfg):
        for step in image_steps(cfg):
            if not (skip_geometry and kind_of(step) in GEOMETRY):
                results = run_step(step, results, path)
    if 'inputs' not in results or results['inputs'].dim() != 3:
        raise UserError(f'{path}: the test pipeline does not end with one packed image (C, h, w)')
    if skip_geometry and hasattr(results['data_samples'], 'set_metainfo'):
        results['data_samples'].set_metainfo({'scale_factor': (1.0, 1.0)})  # mmdet asks for it
    return {'inputs': [results['inputs']], 'data_samples': [results['data_samples']]}
