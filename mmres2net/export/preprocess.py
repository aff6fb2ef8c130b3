"""What happens to an image before the network: the test pipeline of a config as a runner without torch knows it, and
the data preprocessor inside the exported graph, so that users cannot get it wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.engine import source
from mmres2net.engine.build import scope_of
from mmres2net.errors import UserError
from mmres2net.predict.images import PILLOW_FILTERS

GEOMETRY = ('Resize', 'ResizeEdge', 'CenterCrop')
# Arguments of these steps that a runner follows, or that change boxes alone
RESIZE_KEYS = {'type', 'scale', 'keep_ratio', 'edge', 'backend', 'interpolation', 'clip_object_border'}
CROP_KEYS = {'type', 'crop_size', 'auto_pad', 'clip_object_border'}
ALIGNED = 'AlignedSegDataPreProcessor'
KINDS = ('ClsDataPreprocessor', 'DetDataPreprocessor', 'SegDataPreProcessor', ALIGNED)


def transforms_of(cfg: Config) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return the geometric transforms of the test pipeline, see :func:`mmres2net.predict.images.apply_transforms`.

    Where a runner cannot do them, there are none, and the second value is the reason.
    """
    transforms = []
    for step in source.image_steps(cfg):
        if source.loads_image(step) or source.kind_of(step).startswith('Pack'):
            continue
        transform = _transform(step)
        if transform is None:
            return (), f'the step {step} of the test pipeline is not supported'
        transforms.append(transform)
    return tuple(transforms), ''


def _transform(step: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a step as a runner takes it; None if it does not."""
    kind = source.kind_of(step)
    if kind == 'CenterCrop':
        if 'crop_size' not in step or step.get('auto_pad') or set(step) - CROP_KEYS:
            return None
        return {'type': kind, 'crop_size': _pair(step['crop_size'])}
    backend, interpolation, scale = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear'), step.get('scale')
    filters = {'pillow': PILLOW_FILTERS, 'cv2': ('bilinear',)}.get(backend, ())
    if kind not in GEOMETRY or scale is None or set(step) - RESIZE_KEYS or interpolation not in filters:
        return None
    pillow = {'filter': interpolation} if backend == 'pillow' else {}
    if kind == 'ResizeEdge':
        return {'type': kind, 'scale': int(scale), 'edge': step.get('edge', 'short'), **pillow}
    return {'type': kind, 'scale': _pair(scale), 'keep_ratio': bool(step.get('keep_ratio', False)), **pillow}


def run_pipeline(cfg: Config, path: Path, *, skip_geometry: bool = False) -> dict[str, Any]:
    """Return an image file as a batch of one, by the config's own test pipeline without annotations.

    ``skip_geometry`` leaves out resizing and cropping. A UserError says that a step fails, or that the pipeline does
    not end with one image.
    """
    with scope_of(cfg):
        steps = source.build_steps(cfg, from_file=True)
        steps = [step for step in steps if not (skip_geometry and source.kind_of(step) in GEOMETRY)]
        batch = source.run_steps(steps, source.first_results(cfg, path), path)
    if skip_geometry and hasattr(batch['data_samples'][0], 'set_metainfo'):
        batch['data_samples'][0].set_metainfo({'scale_factor': (1.0, 1.0)})  # mmdet asks for it
    return batch


@dataclass(frozen=True)
class Padding:
    """How test images are padded, at the right and at the bottom."""

    divisor: int = 1  # height and width become a multiple of it, plus `offset`
    offset: int = 0  # 1 for networks with aligned corners
    least: tuple[int, int] = (1, 1)  # height and width
    value: float = 0.0  # that is padded with, after the normalization

    def lack(self, size: int, axis: int) -> int:
        """Return how many pixels are added to ``size`` pixels in height (axis 0) or width (1); traces can follow it."""
        padded = (size - self.offset + self.divisor - 1) // self.divisor * self.divisor + self.offset
        if isinstance(padded, Tensor):
            return padded.clamp(min=self.least[axis]) - size
        return torch.sym_max(padded, self.least[axis]) - size


class Preprocess(nn.Module):
    """Normalize and pad RGB pixels of 0 to 255. ``mean`` and ``std`` are in the network's order: with ``swap``, BGR."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, swap: bool, padding: Padding | None) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1))
        self.swap, self.padding = swap, padding

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, 3, H', W') float for ``image`` (N, 3, H, W) uint8 RGB; H' and W' are H and W with padding."""
        x = image.float()
        x = ((x.flip(1) if self.swap else x) - self.mean) / self.std
        if self.padding is None or self.padding == Padding(value=self.padding.value):
            return x
        bottom, right = self.padding.lack(image.shape[2], 0), self.padding.lack(image.shape[3], 1)
        return functional.pad(x, (0, right, 0, bottom), value=self.padding.value)


def preprocess_of(cfg: Config, *, pad: bool) -> Preprocess:
    """Return what the data preprocessor of ``cfg`` does to RGB pixels in testing, without padding unless ``pad``.

    A UserError says that it or the channel order of the images is unknown, or that images have not 3 channels.
    """
    node = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    kind = str(node.get('type', KINDS[0])).rpartition('.')[2]
    if kind not in KINDS:
        raise UserError(f'model.data_preprocessor.type={node["type"]!r}: supported are {", ".join(KINDS)}')
    mean, std = list(node.get('mean') or ()), list(node.get('std') or ())
    if len(mean) != 3 or len(std) != 3:
        text = f'model.data_preprocessor.mean={mean}, std={std}: set both for three channels'
        raise UserError(f'{text}, so that the file can take raw pixels; other images than RGB cannot be exported')
    converts = any(node.get(flag) for flag in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
    swap = converts == (source.channel_order_of(cfg) == 'rgb')
    return Preprocess(mean, std, swap=swap, padding=_padding(node, kind) if pad else None)


def _padding(node: dict[str, Any], kind: str) -> Padding:
    value = float(node.get('pad_value', node.get('pad_val', 0)))
    if kind == ALIGNED:
        return Padding(int(node.get('divisor', 16)), 1, _pair(node['size']), value)
    if kind == 'SegDataPreProcessor':
        test = node.get('test_cfg') or {}
        return Padding(int(test.get('size_divisor') or 1), 0, _pair(test.get('size') or 1), value)
    return Padding(int(node.get('pad_size_divisor') or 1), value=value)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
