"""A config's test pipeline as a runner without torch knows it: by reading the config, and by running its own steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.engine.build import scope_of
from mmres2net.engine.pipeline import build_steps, first_results, image_steps, kind_of, loads_image, run_steps
from mmres2net.predict.images import PILLOW_FILTERS

GEOMETRY = ('Resize', 'ResizeEdge', 'CenterCrop')
RESIZE_KEYS = {'type', 'scale', 'keep_ratio', 'edge', 'backend', 'interpolation', 'clip_object_border'}


def transforms_of(cfg: Config) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return the geometric transforms of the test pipeline, see :func:`mmres2net.predict.images.apply_transforms`.

    Where a runner cannot do them, there are none, and the second value is the reason.
    """
    transforms = []
    for step in image_steps(cfg):
        kind = kind_of(step)
        if loads_image(step) or kind.startswith('Pack'):
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


def run_pipeline(cfg: Config, path: Path, *, skip_geometry: bool = False) -> dict[str, Any]:
    """Return an image file as a batch of one, by the config's own test pipeline without annotations.

    ``skip_geometry`` leaves out resizing and cropping. A UserError says that a step fails, or that the pipeline does
    not end with one image.
    """
    with scope_of(cfg):
        steps = build_steps(cfg, from_file=True)
        steps = [step for step in steps if not (skip_geometry and kind_of(step) in GEOMETRY)]
        batch = run_steps(steps, first_results(cfg, path), path)
    if skip_geometry and hasattr(batch['data_samples'][0], 'set_metainfo'):
        batch['data_samples'][0].set_metainfo({'scale_factor': (1.0, 1.0)})  # mmdet asks for it
    return batch
