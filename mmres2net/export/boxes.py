"""What a two-stage detector does with boxes, in operations that can be traced and run with any number of boxes.

Boxes are (n, 4): left, top, right, bottom in pixels. Ren et al., "Faster R-CNN", 2015, section 3.1; Lin et al.,
"Feature Pyramid Networks", 2017, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import nms

MAX_LOG_RATIO = abs(math.log(16 / 1000))  # how far a box may grow or shrink, as in mmdet


def make_anchors(base: Tensor, height: int, width: int, stride: tuple[int, int]) -> Tensor:
    """Return the anchors (H * W * A, 4) of a map of H x W; ``base`` (A, 4) are those of the first cell."""
    x = torch.arange(width, device=base.device).to(base) * stride[0]
    y = torch.arange(height, device=base.device).to(base) * stride[1]
    shift_y, shift_x = torch.meshgrid(y, x, indexing='ij')
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], -1)  # (H, W, 4)
    return (shifts[:, :, None] + base).reshape(-1, 4)


def decode_boxes(boxes: Tensor, deltas: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Return ``boxes`` (n, 4) moved and scaled by ``deltas`` (n, 4), normalized with ``means`` and ``stds``."""
    deltas = deltas * stds + means
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    center = center + size * deltas[:, :2]
    half = size * deltas[:, 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([center - half, center + half], 1)


def clip_boxes(boxes: Tensor, border: Tensor) -> Tensor:
    """Return ``boxes`` within an image of ``border``, (4,): width, height, width, height."""
    return torch.minimum(boxes.clamp(min=0), border)


def nms_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, border: Tensor, threshold: float) -> Tensor:
    """Return the indices (m,) of the boxes that stay, highest score first.

    Boxes (n, 4) within an image of ``border`` suppress one another only within their group, the number in ``groups``
    (n,), where their IoU is above ``threshold``.
    """
    # Groups are moved apart by the image's size, not by the largest coordinate: there may be no box.
    offsets = groups.to(boxes) * (border.max() + 1)
    return nms(boxes + offsets[:, None], scores, threshold)


def pyramid_levels(boxes: Tensor, finest_scale: float, count: int) -> Tensor:
    """Return which of ``count`` levels of the pyramid each box (n, 4) is pooled from, (n,)."""
    scale = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return (scale / finest_scale + 1e-6).log2().floor().clamp(0, count - 1)


def pool_regions(
    features: Sequence[Tensor], boxes: Tensor, layers: Iterable[nn.Module], finest_scale: float
) -> tuple[Tensor, Tensor]:
    """Return the features (n, C, h, w) of ``boxes`` (n, 4), level by level, and which box each belongs to (n,).

    Args:
        features: The levels, each (1, C, H_i, W_i).
        boxes: (n, 4).
        layers: RoIAlign of each level.
        finest_scale: Regions smaller than twice this size are pooled from the first level.
    """
    layers = list(layers)
    regions = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    if len(layers) == 1:
        return layers[0](features[0], regions), torch.arange(boxes.shape[0], device=boxes.device)
    levels = pyramid_levels(boxes, finest_scale, len(layers))
    parts = [(levels == level).nonzero()[:, 0] for level in range(len(layers))]
    pooled = [layer(feature, regions[part]) for layer, feature, part in zip(layers, features, parts, strict=False)]
    return torch.cat(pooled), torch.cat(parts)
