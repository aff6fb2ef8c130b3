"""Parameters and multiply-adds of a config's model, from shapes alone: nothing is computed and no memory is taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.errors import UserError

MASKS = 100  # detections of an image in the COCO protocol; each gets a mask


@dataclass(frozen=True)
class Complexity:
    """What one image costs in testing.

    Args:
        size: Height and width in pixels of the image that the network sees.
        parameters: All parameters of the model.
        backbone_parameters: Those of the backbone; without a pyramid, with the stage that is the head of the regions.
        macs: Multiply-adds of all convolutions and matrix products: of the dense part, of the regions that the test
            settings let through, and of 100 masks.
        backbone_macs: Those of the backbone on the whole image.
    """

    size: tuple[int, int]
    parameters: int
    backbone_parameters: int
    macs: int
    backbone_macs: int


def complexity_of(cfg: Config, size: tuple[int, int]) -> Complexity:
    """Return what the model of ``cfg`` costs for one image of ``size`` (height, width).

    Raises:
        UserError: The model is neither a two-stage detector nor a segmentor of backbone and decode head.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with torch.device('meta'):
        model = MODELS.build(copy.deepcopy(cfg.model))  # the hosts write into what they build from
        model.eval()
        features, backbone = _count(model.backbone, torch.empty(1, 3, *size))
        if hasattr(model, 'decode_head'):
            rest = _count(model.decode_head, features)[1]
        elif getattr(model, 'with_roi_head', False):
            rest = _detector_macs(model, features, cfg.model.test_cfg.rpn.max_per_img)
        else:
            raise UserError(f'cannot count the multiply-adds of a {type(model).__name__}: no decode head, no RoI head')
    shared = getattr(getattr(model, 'roi_head', None), 'shared_head', None)
    in_backbone = [model.backbone] if shared is None else [model.backbone, shared]
    return Complexity(size, _parameters(model), sum(map(_parameters, in_backbone)), backbone + rest, backbone)


def _detector_macs(model: Any, features: Any, proposals: int) -> int:
    macs = 0
    if model.with_neck:
        features, macs = _count(model.neck, features)
    macs += _count(model.rpn_head, features)[1]
    head = model.roi_head
    macs += _region_macs(head, head.bbox_roi_extractor, head.bbox_head, proposals)
    if head.with_mask:
        macs += _region_macs(head, head.mask_roi_extractor, head.mask_head, MASKS)
    return macs


def _region_macs(head: Any, extractor: Any, branch: Any, count: int) -> int:
    regions = torch.empty(count, extractor.out_channels, *extractor.roi_layers[0].output_size)
    macs = 0
    if head.with_shared_head:
        regions, macs = _count(head.shared_head, regions)
    return macs + _count(branch, regions)[1]


def _count(function: Callable[[Any], Any], x: Any) -> tuple[Any, int]:
    """Return ``function(x)`` and its multiply-adds; torch counts each as two operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = function(x)
    return out, counter.get_total_flops() // 2


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
