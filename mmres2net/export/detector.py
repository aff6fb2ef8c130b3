"""mmdet's Faster and Mask R-CNN as a graph: raw pixels of one image in, boxes, scores, labels and masks out.

The layers are mmdet's, with their weights. What lies between them is written here in operations that can be traced and
run with any number of boxes, since mmdet's own code cannot. With a feature pyramid or without one ("C4"). Boxes are
(n, 4): left, top, right, bottom in pixels. Ren et al., "Faster R-CNN", 2015, section 3.1; Lin et al., "Feature Pyramid
Networks", 2017, figure 3 and equation 1.
"""

import math
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import RoIAlign, nms

from mmres2net.export.preprocess import Preprocess

KINDS = ('FasterRCNN', 'MaskRCNN')
# What parts of a model must be, by their place in it
PARTS = {
    'roi_head': 'StandardRoIHead', 'rpn_head': 'RPNHead', 'rpn_head.prior_generator': 'AnchorGenerator',
    'rpn_head.bbox_coder': 'DeltaXYWHBBoxCoder', 'roi_head.bbox_head.bbox_coder': 'DeltaXYWHBBoxCoder',
    'roi_head.bbox_roi_extractor': 'SingleRoIExtractor', 'roi_head.bbox_roi_extractor.roi_layers.0': 'RoIAlign',
}  # fmt: skip
MASK_PARTS = {'roi_head.mask_roi_extractor': 'SingleRoIExtractor', 'roi_head.mask_head': 'FCNMaskHead'}
NMS_KEYS = {'type', 'iou_threshold', 'split_thr'}
MAX_LOG_RATIO = abs(math.log(16 / 1000))  # how far a box may grow or shrink, as in mmdet


class DetectorGraph(nn.Module):
    """Preprocessing, backbone, neck, region proposals and the heads of regions of a detector as mmdet builds it."""

    task = 'detection'

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__()
        self.preprocess, self.backbone = preprocess, model.backbone
        neck: nn.Module = model.neck if model.with_neck else nn.Identity()
        plain = type(neck).__name__ == 'FPN' and not neck.add_extra_convs and neck.upsample_cfg == {'mode': 'nearest'}
        self.neck = FeaturePyramid(neck) if plain else neck
        self.proposals = Proposals(model.rpn_head)
        self.boxes = Boxes(model.roi_head)
        self.masks = Masks(model.roi_head) if model.roi_head.with_mask else None
        names = ('boxes', 'scores', 'labels') + (('masks',) if self.masks else ())
        self.axes = {name: {0: 'detections'} for name in names}
        test = model.roi_head.test_cfg
        masks = float(test.get('mask_thr_binary', 0.5))
        self.settings = {'score_threshold': float(test.score_thr), 'mask_threshold': masks}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the detections in ``image`` (1, 3, H, W) uint8, highest score first.

        These are boxes (n, 4) in pixels of the image, scores (n,), labels (n,) and, of a Mask R-CNN, masks (n, 28, 28):
        the probability of the object on a grid over its box.
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
    """An ``FPN`` of mmdet without extra convolutions, in operations that exporters can follow at any size."""

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


class BoxDecoder(nn.Module):
    """Move, scale and clip boxes as ``coder`` does, a ``DeltaXYWHBBoxCoder`` of mmdet."""

    means: Tensor
    stds: Tensor

    def __init__(self, coder: Any) -> None:
        super().__init__()
        self.register_buffer('means', torch.tensor(coder.means))
        self.register_buffer('stds', torch.tensor(coder.stds))

    def forward(self, boxes: Tensor, deltas: Tensor, border: Tensor) -> Tensor:
        """Return ``boxes`` (n, 4), changed by ``deltas`` (n, 4) and clipped to ``border``: (width, height) twice."""
        deltas = deltas * self.stds + self.means
        center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        center = center + size * deltas[:, :2]
        half = size * deltas[:, 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
        return torch.minimum(torch.cat([center - half, center + half], 1).clamp(min=0), border)


def nms_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, border: Tensor, threshold: float) -> Tensor:
    """Return the indices (m,) of the boxes that stay, highest score first.

    Boxes (n, 4) within an image of ``border`` suppress one another only within their group, the number in ``groups``
    (n,), where their IoU is above ``threshold``.
    """
    # Groups are moved apart by the image's size, not by the largest coordinate: there may be no box.
    offsets = groups.to(boxes) * (border.max() + 1)
    return nms(boxes + offsets[:, None], scores, threshold)


class Proposals(nn.Module):
    """The region proposal network with its layers from ``head``, an ``RPNHead`` of mmdet."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.layers, self.decode = head, BoxDecoder(head.bbox_coder)
        self.before = int(head.test_cfg.get('nms_pre', 0))
        self.after = int(head.test_cfg.max_per_img)
        self.threshold = float(head.test_cfg.nms.iou_threshold)
        self.least = float(head.test_cfg.get('min_bbox_size', -1))

    def forward(self, features: tuple[Tensor, ...], border: Tensor) -> Tensor:
        """Return the proposed boxes (n, 4) of an image of ``border``, highest score first."""
        levels = [self._level(level, feature, border) for level, feature in enumerate(features)]
        scores, boxes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        groups = torch.cat([torch.full_like(part, level) for level, (part, _) in enumerate(levels)])
        valid = scores >= 0
        if self.least >= 0:
            valid = valid & ((boxes[:, 2:] - boxes[:, :2]) > self.least).all(1)
        kept = valid.nonzero()[:, 0]
        boxes = boxes[kept]
        return boxes[nms_by_group(boxes, scores[kept], groups[kept], border, self.threshold)[: self.after]]

    def _level(self, level: int, feature: Tensor, border: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and boxes of a level, the best ones; fillers have negative scores."""
        logits, deltas = self.layers.forward_single(feature)
        anchors_of, size = self.layers.prior_generator.single_level_grid_priors, (feature.shape[2], feature.shape[3])
        boxes = anchors_of(size, level, dtype=feature.dtype, device=feature.device)
        scores = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
        deltas = deltas.permute(0, 2, 3, 1).reshape(-1, 4)
        if self.before > 0:
            # With fillers, so that top-k takes a constant number whatever the size of the level.
            scores, best = torch.cat([scores, scores.new_full((self.before,), -1)]).topk(self.before)
            best = torch.minimum(best, best.new_zeros(1) + (deltas.shape[0] - 1))
            boxes, deltas = boxes[best], deltas[best]
        return scores, self.decode(boxes, deltas, border)


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
        """Return the features (n, C, h, w) of ``boxes`` (n, 4), level by level, and which box each belongs to (n,).

        ``features`` are the levels, each (1, C, H_i, W_i). Regions smaller than twice ``finest_scale`` are pooled from
        the first level.
        """
        regions = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
        if len(self.layers) == 1:
            pooled = self.layers[0](features[0], regions)
            return self.shared(pooled), torch.arange(boxes.shape[0], device=boxes.device)
        scale = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        levels = (scale / self.finest_scale + 1e-6).log2().floor().clamp(0, len(self.layers) - 1)
        parts = [(levels == level).nonzero()[:, 0] for level in range(len(self.layers))]
        pooled = torch.cat([layer(x, regions[k]) for layer, x, k in zip(self.layers, features, parts, strict=False)])
        return self.shared(pooled), torch.cat(parts)


class Boxes(nn.Module):
    """The head of boxes with its layers from ``roi_head``, a ``StandardRoIHead`` of mmdet."""

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        self.regions = Regions(roi_head.bbox_roi_extractor, roi_head)
        self.layers, self.decode = roi_head.bbox_head, BoxDecoder(roi_head.bbox_head.bbox_coder)
        self.agnostic = bool(roi_head.bbox_head.reg_class_agnostic)
        self.least_score = float(roi_head.test_cfg.score_thr)
        self.threshold = float(roi_head.test_cfg.nms.iou_threshold)
        self.most = int(roi_head.test_cfg.max_per_img)

    def forward(self, features: tuple[Tensor, ...], proposals: Tensor, border: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (n, 4), scores (n,) and labels (n,), highest score first."""
        pooled, order = self.regions(features, proposals)
        logits, deltas = self.layers(pooled)
        scores = logits.softmax(1)[:, :-1]
        # Only pairs of region and class above the threshold are decoded.
        pairs = (scores > self.least_score).nonzero()
        region, label = pairs[:, 0], pairs[:, 1]
        deltas = deltas.reshape(-1, 1 if self.agnostic else scores.shape[1], 4)
        boxes = self.decode(proposals[order][region], deltas[region, 0 if self.agnostic else label], border)
        kept_scores = scores[region, label]
        kept = nms_by_group(boxes, kept_scores, label, border, self.threshold)[: self.most]
        return boxes[kept], kept_scores[kept], label[kept]


class Masks(nn.Module):
    """The head of masks with its layers from ``roi_head``."""

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        self.regions = Regions(roi_head.mask_roi_extractor, roi_head)
        self.layers = roi_head.mask_head

    def forward(self, features: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the masks of ``boxes`` (n, 4) of classes ``labels`` (n,): probabilities (n, h, w)."""
        pooled, order = self.regions(features, boxes)
        masks = self.layers(pooled)[order.argsort()].sigmoid()  # (n, classes, h, w)
        if self.layers.class_agnostic:
            return masks[:, 0]
        return masks[torch.arange(labels.shape[0], device=labels.device), labels]


def refusal(model: Any) -> str:
    """Return why a detector cannot be exported whole; an empty string where it can."""
    if type(model).__name__ not in KINDS:
        return f'of detectors {" and ".join(KINDS)} are supported, not {type(model).__name__}'
    rpn, roi = model.rpn_head, model.roi_head
    for where, kind in (PARTS | (MASK_PARTS if roi.with_mask else {})).items():
        part: Any = attrgetter(where)(model)
        if type(part).__name__ != kind:
            return f'{where} is a {type(part).__name__}; only {kind} is supported'
        if kind == 'DeltaXYWHBBoxCoder' and (not part.clip_border or part.add_ctr_clamp):
            return f'{where}: only clip_border=True and add_ctr_clamp=False are supported'
    for where, settings in (('rpn', rpn.test_cfg), ('rcnn', roi.test_cfg)):
        nms_cfg = dict(settings.get('nms') or {})
        if nms_cfg.get('type', 'nms') != 'nms' or set(nms_cfg) - NMS_KEYS or 'iou_threshold' not in nms_cfg:
            return f'test_cfg.{where}.nms={nms_cfg}: only type nms with an iou_threshold is supported'
    if not rpn.use_sigmoid_cls or roi.bbox_head.custom_cls_channels:
        return 'only an rpn_head with a sigmoid and a bbox_head with a softmax are supported'
    return ''
