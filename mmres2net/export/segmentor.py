"""mmseg's ``EncoderDecoder`` as a graph: raw pixels in, a class for each pixel out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.export.opening import Crop
from mmres2net.export.pixels import Pixels

DEEPLAB = ('image_pool', 'aspp_modules', 'bottleneck', 'c1_bottleneck', 'sep_bottleneck', 'conv_seg')


class SegmentorGraph(nn.Module):
    """Pixels, backbone and decode head of a segmentor that tests whole images.

    Args:
        pixels: What is done to the image.
        model: The segmentor as mmseg builds it, its backbone rewritten.
    """

    def __init__(self, pixels: Pixels, model: Any) -> None:
        super().__init__()
        self.pixels, self.backbone = pixels, model.backbone
        self.neck = model.neck if getattr(model, 'with_neck', False) else nn.Identity()
        self.head = model.decode_head
        self.crop = Crop()
        self.align_corners = bool(self.head.align_corners)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and classes of ``image`` (N, 3, H, W) uint8.

        Returns:
            Logits (N, K, H, W) and the class of the highest one (N, H, W), int64.
        """
        height, width = image.shape[2], image.shape[3]
        x = self.pixels(image)
        features = self.neck(self.backbone(x))
        logits = deeplab(self.head, features) if is_deeplab(self.head) else self.head(features)
        logits = self.crop(_resized(logits, x, self.align_corners), height, width)
        return logits, logits.argmax(1)


def refusal(model: Any) -> str:
    """Return why a segmentor cannot be exported whole; nothing where it can."""
    head = getattr(model, 'decode_head', None)
    if type(model).__name__ != 'EncoderDecoder' or isinstance(head, nn.ModuleList) or head is None:
        return f'a segmentor is exported whole if it is an EncoderDecoder with one decode head, not {_kind(model)}'
    if (model.test_cfg or {}).get('mode', 'whole') != 'whole':
        return f'test_cfg.mode={model.test_cfg.mode!r} cuts the image into windows; whole images are exported'
    if head.out_channels == 1:
        return 'decode_head.out_channels=1: one logit with a threshold is not exported, only a logit a class'
    return ''


def _kind(model: Any) -> str:
    return type(model).__name__


def is_deeplab(head: nn.Module) -> bool:
    """Whether a decode head is DeepLabv3+'s."""
    return all(hasattr(head, name) for name in DEEPLAB)


def deeplab(head: Any, features: tuple[Tensor, ...]) -> Tensor:
    """Return what DeepLabv3+'s head does with ``features``: logits (N, K, H/4, W/4).

    The head's own code compares sizes as numbers, which ties a graph to the size that it was made with.
    """
    x = features[head.in_index]
    pooled = head.image_pool(x).expand(-1, -1, x.shape[2], x.shape[3])  # one pixel, resized
    x = head.bottleneck(torch.cat([pooled, *head.aspp_modules(x)], 1))
    if head.c1_bottleneck is not None:
        low = head.c1_bottleneck(features[0])
        x = torch.cat([_resized(x, low, head.align_corners), low], 1)
    return head.conv_seg(head.sep_bottleneck(x))


def _resized(x: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    return functional.interpolate(x, (like.shape[2], like.shape[3]), mode='bilinear', align_corners=align_corners)
