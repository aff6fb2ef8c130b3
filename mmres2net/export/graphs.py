"""The graph that a model becomes: the complete model where that is supported, else its backbone, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.engine.pipeline import applies_exif
from mmres2net.engine.source import ModelSource
from mmres2net.errors import UserError
from mmres2net.export import detector
from mmres2net.export.pipeline import transforms_of
from mmres2net.export.preprocess import Preprocess, preprocess_of
from mmres2net.predict.runtimes import ExportMetadata

PARTS = ('whole', 'backbone')
FORBIDDEN = ('CARAFE', 'CARAFEPack', 'MaskedConv2d', 'SAConv2d')  # operations of mmcv, besides deformable ones
SOFTMAX_HEADS = ('LinearClsHead', 'StackedLinearClsHead')
DEEPLAB = ('image_pool', 'aspp_modules', 'bottleneck', 'c1_bottleneck', 'sep_bottleneck', 'conv_seg')
Axes = dict[str, dict[int, str]]
PROBE = 64  # pixels of an image by which outputs are counted
MAP_AXES = {0: 'batch', 2: 'height', 3: 'width'}


@dataclass(frozen=True)
class Graph:
    """What is written into a file."""

    module: Any  # the network from raw pixels to outputs; its `preprocess` makes the input of the model
    metadata: ExportMetadata  # what the file says about itself
    axes: Axes  # which dimensions of each output vary, by name
    note: str = ''  # what to tell the user


def make_graph(source: ModelSource, part: str | None, size: tuple[int, int] | None) -> Graph:
    """Return the graph of a model; a UserError says why it cannot be exported.

    Args:
        source: The model.
        part: One of :data:`PARTS`; None: whole where possible.
        size: Height and width, if the file shall take images of this size only.
    """
    model = source.model
    if not hasattr(model, 'backbone'):
        raise UserError(f'a {type(model).__name__} has no backbone, so nothing can be exported')
    transforms, unsupported = transforms_of(source.cfg)
    reason = '' if part == 'backbone' else unsupported or refusal(model, transforms)
    if part == 'whole' and reason:
        raise UserError(f'this model cannot be exported whole: {reason}; --part backbone exports its backbone')
    backbone = part == 'backbone' or bool(reason)
    check_exportable(model.backbone if backbone else model)
    preprocess = preprocess_of(source.cfg, pad=not backbone)
    shared = ExportMetadata(
        'backbone',
        (),
        source=f'{source.title}, {source.weights}',
        classes=source.classes,
        palette=source.palette,
        size=size,
        transforms=transforms,
        apply_exif=applies_exif(source.cfg),
        fill=preprocess.fill(),
    )
    if backbone:
        note = f'only the backbone is exported: {reason}' if reason else ''
        note += f'{"; " if note else ""}predict will not resize images' if unsupported else ''
        return replace(_backbone(model.backbone, preprocess, shared), note=note)
    makers = {'roi_head': _detector, 'decode_head': _segmentor, 'head': _classifier}
    return next(make for name, make in makers.items() if hasattr(model, name))(model, preprocess, shared)


def refusal(model: Any, transforms: tuple[dict[str, Any], ...]) -> str:
    """Return why a model cannot be exported whole; an empty string where it can."""
    if hasattr(model, 'decode_head'):
        reason = _segmentor_refusal(model)
    elif hasattr(model, 'roi_head') or hasattr(model, 'bbox_head'):
        reason = detector.refusal(model)
    elif type(model).__name__ == 'ImageClassifier':
        kind = type(model.head).__name__
        return '' if kind in SOFTMAX_HEADS else f'classifiers need a head of {" or ".join(SOFTMAX_HEADS)}, not {kind}'
    else:
        return f'supported are classifiers, segmentors, Faster and Mask R-CNN, not {type(model).__name__}'
    if not reason and ([step['type'] for step in transforms] not in ([], ['Resize']) or 'filter' in str(transforms)):
        reason = 'the test pipeline of detectors and segmentors may have one Resize of OpenCV and no other transform'
    return reason


def check_exportable(network: nn.Module) -> None:
    """Raise a UserError for deformable convolutions and other operations of mmcv, which other runtimes do not have."""
    for name, module in network.named_modules():
        kind = type(module).__name__
        if 'Deform' in kind or kind in FORBIDDEN:
            raise UserError(
                f'{name} is a {kind}, which ONNX and OpenVINO do not have; export a model without (dcn=None)'
            )


class BackboneGraph(nn.Module):
    """Preprocessing and backbone."""

    def __init__(self, preprocess: Preprocess, backbone: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.backbone = preprocess, backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) of each stage for ``image`` (N, 3, H, W) uint8."""
        features = self.backbone(self.preprocess(image))
        return tuple(features) if isinstance(features, tuple | list) else (features,)


def _backbone(network: Any, preprocess: Preprocess, metadata: ExportMetadata) -> Graph:
    module = BackboneGraph(preprocess, network).eval()
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.uint8))
    indices = getattr(network, 'out_indices', None) or ()
    names = tuple(f'stage{index}' for index in (indices if len(indices) == len(maps) else range(len(maps))))
    metadata = replace(metadata, outputs=names, strides=tuple(PROBE // x.shape[3] for x in maps))
    return Graph(module, metadata, _axes(dict.fromkeys(names, MAP_AXES), metadata))


class ClassifierGraph(BackboneGraph):
    """Preprocessing, backbone, neck and head of a classifier of mmpretrain."""

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__(preprocess, model.backbone)
        self.neck: nn.Module = model.neck if model.with_neck else nn.Identity()
        self.head = model.head

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the probability of each class (N, K) for ``image`` (N, 3, H, W) uint8."""
        return (self.head(self.neck(super().forward(image))).softmax(1),)


def _classifier(model: Any, preprocess: Preprocess, metadata: ExportMetadata) -> Graph:
    metadata = replace(metadata, task='classification', outputs=('scores',))
    return Graph(ClassifierGraph(preprocess, model).eval(), metadata, {'scores': {0: 'batch'}})


class Crop(nn.Module):
    """The upper left part of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = False  # torch.export asks whether a slice cuts anything off, but not of gathered rows

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return (N, C, height, width) of ``x`` (N, C, H, W)."""
        if not self.gather:
            return x[:, :, :height, :width]
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        return x.index_select(2, rows).index_select(3, columns)


class SegmentorGraph(BackboneGraph):
    """Preprocessing, backbone, neck and decode head of an ``EncoderDecoder`` of mmseg that tests whole images."""

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__(preprocess, model.backbone)
        self.neck: nn.Module = model.neck if getattr(model, 'with_neck', False) else nn.Identity()
        self.head, self.crop = model.decode_head, Crop()
        self.align_corners = bool(self.head.align_corners)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K, H, W) and the class of the highest one (N, H, W) of ``image`` (N, 3, H, W) uint8."""
        x = self.preprocess(image)
        features = self.neck(self.backbone(x))
        is_deeplab = all(hasattr(self.head, name) for name in DEEPLAB)
        logits = _deeplab(self.head, features) if is_deeplab else self.head(features)
        logits = self.crop(_resized(logits, x, self.align_corners), image.shape[2], image.shape[3])
        return logits, logits.argmax(1)


def _segmentor_refusal(model: Any) -> str:
    head = model.decode_head
    if type(model).__name__ != 'EncoderDecoder' or isinstance(head, nn.ModuleList):
        return f'of segmentors EncoderDecoder with one decode head is supported, not {type(model).__name__}'
    if (model.test_cfg or {}).get('mode', 'whole') != 'whole':
        return f'model.test_cfg.mode={model.test_cfg.mode!r} cuts the image into windows; mode=whole is supported'
    if head.out_channels == 1:
        return 'decode_head.out_channels=1 (one logit with a threshold) is not supported, only a logit for each class'
    return ''


def _deeplab(head: Any, features: tuple[Tensor, ...]) -> Tensor:
    """Return the logits (N, K, H/4, W/4) of DeepLabv3+'s head.

    The head's own code compares sizes as numbers, which ties a graph to the size that it was traced with.
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


def _segmentor(model: Any, preprocess: Preprocess, metadata: ExportMetadata) -> Graph:
    module = SegmentorGraph(preprocess, model).eval()
    names = ('logits', 'classes')
    metadata = replace(metadata, task='segmentation', outputs=names, align_corners=module.align_corners)
    axes = {'logits': MAP_AXES, 'classes': {0: 'batch', 1: 'height', 2: 'width'}}
    return Graph(module, metadata, _axes(axes, metadata))


def _detector(model: Any, preprocess: Preprocess, metadata: ExportMetadata) -> Graph:
    module = detector.DetectorGraph(preprocess, model).eval()
    names = ('boxes', 'scores', 'labels') + (('masks',) if module.masks else ())
    settings = model.roi_head.test_cfg
    metadata = replace(
        metadata,
        task='detection',
        outputs=names,
        batch=False,
        score_threshold=float(settings.score_thr),
        mask_threshold=float(settings.get('mask_thr_binary', 0.5)),
    )
    return Graph(module, metadata, {name: {0: 'detections'} for name in names})


def _axes(axes: Axes, metadata: ExportMetadata) -> Axes:
    """Return ``axes``; where the size is fixed, only the batch varies."""
    return {name: {0: 'batch'} if metadata.size else dict(dims) for name, dims in axes.items()}
