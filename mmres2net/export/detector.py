"""mmdet's Faster and Mask R-CNN as a graph: raw pixels of one image in, boxes, scores, labels and masks out.

The layers are mmdet's, with their weights. What lies between them is written here in operations that can be traced,
since mmdet's own code cannot. With a feature pyramid or without one ("C4").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import RoIAlign

from mmres2net.export.boxes import clip_boxes, decode_boxes, make_anchors, nms_by_group, pool_regions
from mmres2net.export.preprocess import Preprocess

KINDS = ('FasterRCNN', 'MaskRCNN')
NMS_KEYS = {'type', 'iou_threshold', 'split_thr'}


class DetectorGraph(nn.Module):
    """Preprocessing, backbone, neck, region proposals and the heads of regions of a detector as mmdet builds it."""

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__()
        self.preprocess, self.backbone = preprocess, model.backbone
        neck: nn.Module = model.neck if model.with_neck else nn.Identity()
        self.neck = FeaturePyramid(neck) if _is_plain_fpn(neck) else neck
        self.proposals = Proposals(model.rpn_head)
        self.boxes = Boxes(model.roi_head)
        self.masks = Masks(model.roi_head) if model.roi_head.with_mask else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the detections in ``image`` (1, 3, H, W) uint8, highest score first.

        Returns:
            Boxes (n, 4) in pixels of the image, scores (n,), labels (n,) and, of a Mask R-CNN, masks (n, 28, 28): the
            probability of the object on a grid over its box.
        """
        x = self.preprocess(image)
        # Sums instead of torch.tensor, which a trace would take for a constant.
        width, height = x.new_zeros(1) + image.shape[3], x.new_zeros(1) + image.shape[2]
        border = torch.cat([width, height, width, height])
        features = self.neck(self.backbone(x))
        boxes, scores, labels = self.boxes(features, self.proposals(features, border), border)
        if self.masks is None:
            return boxes, scores, labels
        return boxes, scores, labels, self.masks(features, boxes, labels)


class FeaturePyramid(nn.Module):
    """An ``FPN`` of mmdet without extra convolutions, in operations that exporters can follow at any size.

    Lin et al., "Feature Pyramid Networks", 2017, figure 3.
    """

    def __init__(self, neck: Any) -> None:
        super().__init__()
        self.lateral_convs, self.fpn_convs = neck.lateral_convs, neck.fpn_convs
        self.start_level, self.num_outs = neck.start_level, neck.num_outs
        self.pool = nn.MaxPool2d(1, 2)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return ``num_outs`` maps, each half as large as the one before, for the maps of a backbone."""
        maps = [conv(x) for conv, x in zip(self.lateral_convs, features[self.start_level :], strict=False)]
        for index in range(len(maps) - 1, 0, -1):
            size = (maps[index - 1].shape[2], maps[index - 1].shape[3])
            maps[index - 1] = maps[index - 1] + functional.interpolate(maps[index], size, mode='nearest')
        outs = [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=True)]
        while len(outs) < self.num_outs:
            outs.append(self.pool(outs[-1]))
        return tuple(outs)


def _is_plain_fpn(neck: Any) -> bool:
    return type(neck).__name__ == 'FPN' and not neck.add_extra_convs and dict(neck.upsample_cfg) == {'mode': 'nearest'}


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
        """Return the proposed boxes (n, 4) of an image of ``border``, highest score first."""
        levels = [self._level(level, feature) for level, feature in enumerate(features)]
        scores, boxes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes = clip_boxes(boxes, border)
        groups = torch.cat([torch.full_like(part, level) for level, (part, _) in enumerate(levels)])
        valid = scores >= 0
        if self.least >= 0:
            valid = valid & ((boxes[:, 2:] - boxes[:, :2]) > self.least).all(1)
        kept = valid.nonzero()[:, 0]
        boxes = boxes[kept]
        return boxes[nms_by_group(boxes, scores[kept], groups[kept], border, self.threshold)[: self.after]]

    def _level(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and boxes of a level, the best ones; fillers have negative scores."""
        logits, deltas = self.layers.forward_single(feature)
        base = self.get_buffer(f'base{level}')
        boxes = make_anchors(base, feature.shape[2], feature.shape[3], self.strides[level])
        scores = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
        deltas = deltas.permute(0, 2, 3, 1).reshape(-1, 4)
        if self.before > 0:
            # With fillers, so that top-k takes a constant number whatever the size of the level.
            scores, best = torch.cat([scores, scores.new_full((self.before,), -1)]).topk(self.before)
            best = torch.minimum(best, best.new_zeros(1) + (deltas.shape[0] - 1))
            boxes, deltas = boxes[best], deltas[best]
        return scores, decode_boxes(boxes, deltas, self.means, self.stds)


class Regions(nn.Module):
    """What the heads of boxes and of masks share: RoIAlign and, without a pyramid, the last stage of the network."""

    def __init__(self, extractor: Any, roi_head: Any) -> None:
        super().__init__()
        self.shared: nn.Module = roi_head.shared_head if roi_head.with_shared_head else nn.Identity()
        self.finest_scale = float(extractor.finest_scale)
        self.layers = nn.ModuleList(
            RoIAlign(tuple(layer.output_size), layer.spatial_scale, layer.sampling_ratio or -1, layer.aligned)
            for layer in extractor.roi_layers
        )

    def forward(self, features: tuple[Tensor, ...], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of ``boxes`` in another order, and that order."""
        pooled, order = pool_regions(features, boxes, self.layers, self.finest_scale)
        return self.shared(pooled), order


class Boxes(nn.Module):
    """The head of boxes with its layers from ``roi_head``, a ``StandardRoIHead`` of mmdet."""

    means: Tensor
    stds: Tensor

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        head, settings = roi_head.bbox_head, roi_head.test_cfg
        self.regions = Regions(roi_head.bbox_roi_extractor, roi_head)
        self.layers = head
        self.register_buffer('means', torch.tensor(head.bbox_coder.means))
        self.register_buffer('stds', torch.tensor(head.bbox_coder.stds))
        self.agnostic = bool(head.reg_class_agnostic)
        self.least_score = float(settings.score_thr)
        self.threshold = float(settings.nms.iou_threshold)
        self.most = int(settings.max_per_img)

    def forward(self, features: tuple[Tensor, ...], proposals: Tensor, border: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (n, 4), scores (n,) and labels (n,), highest score first."""
        pooled, order = self.regions(features, proposals)
        logits, deltas = self.layers(pooled)
        scores = logits.softmax(1)[:, :-1]
        # Only pairs of region and class above the threshold are decoded.
        pairs = (scores > self.least_score).nonzero()
        region, label = pairs[:, 0], pairs[:, 1]
        deltas = deltas.reshape(-1, 1 if self.agnostic else scores.shape[1], 4)
        chosen = deltas[region, 0 if self.agnostic else label]
        boxes = clip_boxes(decode_boxes(proposals[order][region], chosen, self.means, self.stds), border)
        kept_scores = scores[region, label]
        kept = nms_by_group(boxes, kept_scores, label, border, self.threshold)[: self.most]
        return boxes[kept], kept_scores[kept], label[kept]


class Masks(nn.Module):
    """The head of masks with its layers from ``roi_head``."""

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        self.regions = Regions(roi_head.mask_roi_extractor, roi_head)
        self.layers = roi_head.mask_head
        self.agnostic = bool(self.layers.class_agnostic)

    def forward(self, features: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the masks of ``boxes`` (n, 4) of classes ``labels`` (n,): probabilities (n, h, w)."""
        pooled, order = self.regions(features, boxes)
        masks = self.layers(pooled)[order.argsort()].sigmoid()  # (n, classes, h, w)
        if self.agnostic:
            return masks[:, 0]
        rows = torch.arange(labels.shape[0], device=labels.device)
        return masks[rows, labels]


def refusal(model: Any) -> str:
    """Return why a detector cannot be exported whole; an empty string where it can."""
    if type(model).__name__ not in KINDS:
        return f'of detectors {" and ".join(KINDS)} are supported, not {type(model).__name__}'
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
            return f'{where} is a {type(part).__name__}; only {" or ".join(kinds)} is supported'
    return _other_settings(rpn, roi)


def _other_settings(rpn: Any, roi: Any) -> str:
    for where, settings in (('rpn', rpn.test_cfg), ('rcnn', roi.test_cfg)):
        nms = dict(settings.get('nms') or {})
        if nms.get('type', 'nms') != 'nms' or set(nms) - NMS_KEYS or 'iou_threshold' not in nms:
            return f'test_cfg.{where}.nms={nms}: only type nms with an iou_threshold is supported'
    for where, coder in (('rpn_head', rpn.bbox_coder), ('bbox_head', roi.bbox_head.bbox_coder)):
        if not coder.clip_border or coder.add_ctr_clamp:
            return f'{where}.bbox_coder: only clip_border=True and add_ctr_clamp=False are supported'
    if not rpn.use_sigmoid_cls or roi.bbox_head.custom_cls_channels:
        return 'only an rpn_head with a sigmoid and a bbox_head with a softmax are supported'
    return ''
