"""mmdet's Faster and Mask R-CNN as a graph: raw pixels of one image in, boxes, scores, labels and masks out.

The layers are the host's, with their weights; what lies between them is written here, since the host's own code cannot
be traced. With a feature pyramid or without ("C4").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmres2net.export.boxes import RegionLayer, anchors, clipped, cut_regions, decode, nms_by_group
from mmres2net.export.pixels import Pixels
from mmres2net.export.pyramid import Pyramid, is_plain

KINDS = ('FasterRCNN', 'MaskRCNN')
NMS_KEYS = {'type', 'iou_threshold', 'split_thr'}


class DetectorGraph(nn.Module):
    """Pixels, backbone, neck, region proposals and the heads of regions.

    Args:
        pixels: What is done to the image.
        model: The detector as mmdet builds it, its convolutions folded.
    """

    def __init__(self, pixels: Pixels, model: Any) -> None:
        super().__init__()
        self.pixels, self.backbone = pixels, model.backbone
        neck: nn.Module = model.neck if model.with_neck else nn.Identity()
        self.neck = Pyramid(neck) if is_plain(neck) else neck
        self.proposals = Proposals(model.rpn_head)
        self.boxes = Boxes(model.roi_head)
        self.masks = Masks(model.roi_head) if model.roi_head.with_mask else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return what is in ``image`` (1, 3, H, W) uint8, the surest first.

        Returns:
            Boxes (n, 4) in pixels of the image, scores (n,), labels (n,) and, of a Mask R-CNN, masks (n, 28, 28): the
            probability of the object on a grid over its box.
        """
        x = self.pixels(image)
        # Sums, not tensors of numbers: a trace would take those for constants.
        width, height = x.new_zeros(1) + image.shape[3], x.new_zeros(1) + image.shape[2]
        border = torch.cat([width, height, width, height])
        features = self.neck(self.backbone(x))
        boxes, scores, labels = self.boxes(features, self.proposals(features, border), border)
        if self.masks is None:
            return boxes, scores, labels
        return boxes, scores, labels, self.masks(features, boxes, labels)


class Proposals(nn.Module):
    """The region proposal network with its layers from ``head``, an ``RPNHead`` of mmdet."""

    means: Tensor
    stds: Tensor

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.layers = head
        self.strides = [tuple(stride) for stride in head.prior_generator.strides]
        for level, base in enumerate(head.prior_generator.base_anchors):
            self.register_buffer(f'base{level}', base.float())
        self.register_buffer('means', torch.tensor(head.bbox_coder.means))
        self.register_buffer('stds', torch.tensor(head.bbox_coder.stds))
        settings = head.test_cfg
        self.before = int(settings.get('nms_pre', 0))
        self.after = int(settings.max_per_img)
        self.threshold = float(settings.nms.iou_threshold)
        self.least = float(settings.get('min_bbox_size', -1))

    def forward(self, features: tuple[Tensor, ...], border: Tensor) -> Tensor:
        """Return the proposed boxes (n, 4) of an image of ``border``, the surest first."""
        levels = [self._level(level, feature) for level, feature in enumerate(features)]
        scores, boxes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes = clipped(boxes, border)
        groups = torch.cat([torch.full_like(part, level) for level, (part, _) in enumerate(levels)])
        valid = scores >= 0
        if self.least >= 0:
            valid = valid & ((boxes[:, 2:] - boxes[:, :2]) > self.least).all(1)
        kept = valid.nonzero()[:, 0]
        boxes = boxes[kept]
        return boxes[nms_by_group(boxes, scores[kept], groups[kept], border, self.threshold)[: self.after]]

    def _level(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and boxes of a level, the best before suppression; what is none has a negative score."""
        logits, deltas = self.layers.forward_single(feature)
        base = self.get_buffer(f'base{level}')
        boxes = anchors(base, feature.shape[2], feature.shape[3], self.strides[level])
        scores = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
        deltas = deltas.permute(0, 2, 3, 1).reshape(-1, 4)
        if self.before > 0:
            # Filled up to what is taken, which then is a constant, whatever the size of the level is.
            scores, best = torch.cat([scores, scores.new_full((self.before,), -1)]).topk(self.before)
            best = torch.minimum(best, best.new_zeros(1) + (deltas.shape[0] - 1))
            boxes, deltas = boxes[best], deltas[best]
        return scores, decode(boxes, deltas, self.means, self.stds)


class Regions(nn.Module):
    """What the heads of boxes and of masks share: regions cut from the features, and the stage that works on them."""

    def __init__(self, extractor: Any, shared: nn.Module | None) -> None:
        super().__init__()
        self.shared = shared or nn.Identity()
        self.finest_scale = float(extractor.finest_scale)
        self.layers = [
            RegionLayer(tuple(layer.output_size), layer.spatial_scale, layer.sampling_ratio, layer.aligned)
            for layer in extractor.roi_layers
        ]

    def forward(self, features: tuple[Tensor, ...], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of ``boxes`` in another order, and that order."""
        cut, order = cut_regions(features, boxes, self.layers, self.finest_scale)
        return self.shared(cut), order


class Boxes(nn.Module):
    """The head of boxes with its layers from ``roi_head``, a ``StandardRoIHead`` of mmdet."""

    means: Tensor
    stds: Tensor

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        head, settings = roi_head.bbox_head, roi_head.test_cfg
        self.regions = Regions(roi_head.bbox_roi_extractor, roi_head.shared_head if roi_head.with_shared_head else None)
        self.layers = head
        self.register_buffer('means', torch.tensor(head.bbox_coder.means))
        self.register_buffer('stds', torch.tensor(head.bbox_coder.stds))
        self.agnostic = bool(head.reg_class_agnostic)
        self.least_score = float(settings.score_thr)
        self.threshold = float(settings.nms.iou_threshold)
        self.most = int(settings.max_per_img)

    def forward(self, features: tuple[Tensor, ...], proposals: Tensor, border: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (n, 4), scores (n,) and labels (n,), the surest first."""
        cut, order = self.regions(features, proposals)
        logits, deltas = self.layers(cut)
        scores = logits.softmax(1)[:, :-1]
        # Decoded are only the pairs of region and class that are sure enough.
        pairs = (scores > self.least_score).nonzero()
        region, label = pairs[:, 0], pairs[:, 1]
        deltas = deltas.reshape(-1, 1 if self.agnostic else scores.shape[1], 4)
        chosen = deltas[region, 0 if self.agnostic else label]
        boxes = clipped(decode(proposals[order][region], chosen, self.means, self.stds), border)
        sure = scores[region, label]
        kept = nms_by_group(boxes, sure, label, border, self.threshold)[: self.most]
        return boxes[kept], sure[kept], label[kept]


class Masks(nn.Module):
    """The head of masks with its layers from ``roi_head``."""

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        shared = roi_head.shared_head if roi_head.with_shared_head else None
        self.regions = Regions(roi_head.mask_roi_extractor, shared)
        self.layers = roi_head.mask_head
        self.agnostic = bool(self.layers.class_agnostic)

    def forward(self, features: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the masks of ``boxes`` (n, 4) of classes ``labels`` (n,): probabilities (n, h, w)."""
        cut, order = self.regions(features, boxes)
        masks = self.layers(cut)[order.argsort()].sigmoid()  # (n, classes, h, w)
        if self.agnostic:
            return masks[:, 0]
        rows = torch.arange(labels.shape[0], device=labels.device)
        return masks[rows, labels]


def refusal(model: Any) -> str:
    """Return why a detector cannot be exported whole; nothing where it can."""
    if type(model).__name__ not in KINDS:
        return f'of detectors, {" and ".join(KINDS)} are exported whole, not {type(model).__name__}'
    rpn, roi = model.rpn_head, model.roi_head
    parts = {
        'roi_head': (roi, ('StandardRoIHead',)),
        'rpn_head': (rpn, ('RPNHead',)),
        'rpn_head.anchor_generator': (rpn.prior_generator, ('AnchorGenerator',)),
        'rpn_head.bbox_coder': (rpn.bbox_coder, ('DeltaXYWHBBoxCoder',)),
        'roi_head.bbox_head.bbox_coder': (roi.bbox_head.bbox_coder, ('DeltaXYWHBBoxCoder',)),
        'roi_head.bbox_roi_extractor': (roi.bbox_roi_extractor, ('SingleRoIExtractor',)),
        'roi_head.bbox_roi_extractor.roi_layer': (roi.bbox_roi_extractor.roi_layers[0], ('RoIAlign',)),
    }
    if roi.with_mask:
        parts['roi_head.mask_roi_extractor'] = (roi.mask_roi_extractor, ('SingleRoIExtractor',))
        parts['roi_head.mask_head'] = (roi.mask_head, ('FCNMaskHead',))
    for where, (part, kinds) in parts.items():
        if type(part).__name__ not in kinds:
            return f'{where} is a {type(part).__name__}; {" or ".join(kinds)} is exported'
    return _other_settings(rpn, roi)


def _other_settings(rpn: Any, roi: Any) -> str:
    for where, settings in (('rpn', rpn.test_cfg), ('rcnn', roi.test_cfg)):
        nms = dict(settings.get('nms') or {})
        if nms.get('type', 'nms') != 'nms' or set(nms) - NMS_KEYS or 'iou_threshold' not in nms:
            return f'test_cfg.{where}.nms={nms}: type nms with an iou_threshold is exported alone'
    for where, coder in (('rpn_head', rpn.bbox_coder), ('bbox_head', roi.bbox_head.bbox_coder)):
        if not coder.clip_border or coder.add_ctr_clamp:
            return f'{where}.bbox_coder: clip_border=True and add_ctr_clamp=False are exported alone'
    if not rpn.use_sigmoid_cls or roi.bbox_head.custom_cls_channels:
        return 'the classification of rpn_head by a sigmoid and of bbox_head by a softmax are exported alone'
    return ''
