"""The graph that a model becomes: the complete model where that is supported, or its backbone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmres2net.engine.source import ModelSource, applies_exif
from mmres2net.errors import UserError
from mmres2net.export import detector
from mmres2net.export.preprocess import Preprocess, preprocess_of, transforms_of
from mmres2net.predict.runtimes import ExportMetadata

FORBIDDEN = ('CARAFE', 'CARAFEPack', 'MaskedConv2d', 'SAConv2d')  # operations of mmcv, besides deformable ones
SOFTMAX_HEADS = ('ClsHead', 'LinearClsHead', 'StackedLinearClsHead')
DEEPLAB = ('image_pool', 'aspp_modules', 'bottleneck', 'c1_bottleneck', 'sep_bottleneck', 'conv_seg')
PROBE = 128  # pixels of an image by which outputs are counted; InceptionV3 needs 75
MAP_AXES = {0: 'batch', 2: 'height', 3: 'width'}


@dataclass(frozen=True)
class Graph:
    """What is written into a file."""

    module: Any  # the network from raw pixels to outputs; its `preprocess` makes the input of the model
    metadata: ExportMetadata  # what the file says about itself
    axes: dict[str, dict[int, str]]  # which dimensions of `image` and of each output vary, by name


def make_graph(source: ModelSource, part: str = 'whole') -> Graph:
    """Return the graph of a model, ``whole`` or its ``backbone``; a UserError says why it cannot be exported."""
    model = source.model
    if not hasattr(model, 'backbone'):
        raise UserError(f'a {type(model).__name__} has no backbone, so nothing can be exported')
    transforms, unsupported = transforms_of(source.cfg)
    backbone = part == 'backbone'
    if not backbone and (reason := unsupported or refusal(model, transforms)):
        raise UserError(f'this model cannot be exported whole: {reason}; --part backbone exports its backbone')
    layers = {name: type(layer).__name__ for name, layer in (model.backbone if backbone else model).named_modules()}
    for name, layer in layers.items():
        if 'Deform' in layer or layer in FORBIDDEN:
            raise UserError(f'{name} is a {layer}, which ONNX and OpenVINO do not have; export without it (dcn=None)')
    preprocess = preprocess_of(source.cfg, pad=not backbone)
    kinds = {'roi_head': detector.DetectorGraph, 'decode_head': SegmentorGraph, 'head': ClassifierGraph}
    kind: Any = BackboneGraph if backbone else next(kind for name, kind in kinds.items() if hasattr(model, name))
    module = kind(preprocess, model).eval()
    settings = {**module.settings, 'transforms': transforms, 'apply_exif': applies_exif(source.cfg)}
    weights = f'{source.title}, {source.weights}'
    metadata = ExportMetadata(module.task, tuple(module.axes), weights, source.classes, source.palette, **settings)
    image = MAP_AXES if module.task != 'detection' else {dim: word for dim, word in MAP_AXES.items() if word != 'batch'}
    return Graph(module, metadata, {'image': image, **module.axes})


def refusal(model: Any, transforms: tuple[dict[str, Any], ...]) -> str:
    """Return why a model cannot be exported whole; an empty string where it can."""
    name, head = type(model).__name__, getattr(model, 'decode_head', None)
    if name == 'ImageClassifier':
        kind = type(model.head).__name__
        return '' if kind in SOFTMAX_HEADS else f'classifiers need a head of {" or ".join(SOFTMAX_HEADS)}, not {kind}'
    if head is None and not (hasattr(model, 'roi_head') or hasattr(model, 'bbox_head')):
        return f'supported are classifiers, segmentors, Faster and Mask R-CNN, not {name}'
    if head is not None and (name != 'EncoderDecoder' or isinstance(head, nn.ModuleList)):
        return f'of segmentors EncoderDecoder with one decode head is supported, not {name}'
    if head is not None and (model.test_cfg or {}).get('mode', 'whole') != 'whole':
        return f'model.test_cfg.mode={model.test_cfg.mode!r} cuts the image into windows; mode=whole is supported'
    if head is not None and head.out_channels == 1:
        return 'decode_head.out_channels=1 (one logit with a threshold) is not supported, only a logit for each class'
    reason = detector.refusal(model) if head is None else ''
    if not reason and ([step['type'] for step in transforms] not in ([], ['Resize']) or 'filter' in str(transforms)):
        reason = 'the test pipeline of detectors and segmentors may have one Resize of OpenCV and no other transform'
    return reason


class BackboneGraph(nn.Module):
    """Preprocessing and backbone."""

    task = 'backbone'

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__()
        self.preprocess, self.backbone = preprocess, model.backbone
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.uint8))
        indices = getattr(self.backbone, 'out_indices', None) or ()
        stages = indices if len(indices) == len(maps) else range(len(maps))
        self.axes = {f'stage{index}': MAP_AXES for index in stages}
        self.settings = dict[str, Any]()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) of each stage for ``image`` (N, 3, H, W) uint8."""
        features = self.backbone(self.preprocess(image))
        return tuple(features) if isinstance(features, tuple | list) else (features,)


class ClassifierGraph(nn.Module):
    """Preprocessing, backbone, neck and head of a classifier of mmpretrain."""

    task = 'classification'

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.head = preprocess, model.backbone, model.head
        self.neck: nn.Module = model.neck if model.with_neck else nn.Identity()
        self.axes, self.settings = {'scores': {0: 'batch'}}, dict[str, Any]()

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the probability of each class (N, K) for ``image`` (N, 3, H, W) uint8."""
        return (self.head(self.neck(self.backbone(self.preprocess(image)))).softmax(1),)


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


class SegmentorGraph(nn.Module):
    """Preprocessing, backbone, neck and decode head of an ``EncoderDecoder`` of mmseg that tests whole images."""

    task = 'segmentation'

    def __init__(self, preprocess: Preprocess, model: Any) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.head, self.crop = preprocess, model.backbone, model.decode_head, Crop()
        self.neck: nn.Module = model.neck if getattr(model, 'with_neck', False) else nn.Identity()
        self.axes = {'logits': MAP_AXES, 'classes': {0: 'batch', 1: 'height', 2: 'width'}}
        self.settings = {'align_corners': bool(self.head.align_corners)}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K, H, W) and the class of the highest one (N, H, W) of ``image`` (N, 3, H, W) uint8."""
        x = self.preprocess(image)
        features = self.neck(self.backbone(x))
        is_deeplab = all(hasattr(self.head, name) for name in DEEPLAB)
        logits = _deeplab(self.head, features) if is_deeplab else self.head(features)
        logits = self.crop(_resized(logits, x, self.head), image.shape[2], image.shape[3])
        return logits, logits.argmax(1)


def _deeplab(head: Any, features: tuple[Tensor, ...]) -> Tensor:
    """Return the logits (N, K, H/4, W/4) of DeepLabv3+'s head, whose own code ties a graph to the size of its trace."""
    x = features[head.in_index]
    pooled = head.image_pool(x).expand(-1, -1, x.shape[2], x.shape[3])  # one pixel, resized
    x = head.bottleneck(torch.cat([pooled, *head.aspp_modules(x)], 1))
    if head.c1_bottleneck is not None:
        low = head.c1_bottleneck(features[0])
        x = torch.cat([_resized(x, low, head), low], 1)
    return head.conv_seg(head.sep_bottleneck(x))


def _resized(x: Tensor, like: Tensor, head: Any) -> Tensor:
    align_corners = bool(head.align_corners)
    return functional.interpolate(x, (like.shape[2], like.shape[3]), mode='bilinear', align_corners=align_corners)
