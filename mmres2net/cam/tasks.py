"""The score that a map explains: of a classifier, a segmentor or a detector, from one forward pass.

All scores are taken before softmax or sigmoid, as in Grad-CAM: after it, a score also rises where another class falls.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmres2net.cam.image import PreprocessedImage
from mmres2net.engine.source import ModelSource, place_on
from mmres2net.errors import UserError
from mmres2net.text import join_some

BACKGROUND = 'background'
SHOWN = 5  # close matches of a name


@dataclass(frozen=True)
class Explanation:
    """What is explained: the prediction of a class."""

    label: int
    score: float  # its probability; of a segmentor the mean over the pixels that are explained
    text: str  # the score, and the pixels or box that are explained
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom in pixels of the image


@dataclass(frozen=True)
class Task:
    """What can be explained of a model."""

    count: int  # of classes
    # Returns the score to explain for an image and a class (None: the predicted one), and its explanation.
    explain: Callable[[PreprocessedImage, int | None], tuple[Tensor, Explanation]]


@dataclass(frozen=True, kw_only=True)
class Network(ModelSource):
    """A model whose predictions are explained."""

    task: Task  # what can be explained
    layer: str  # whose map is drawn

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its index where the name is unknown."""
        return self.classes[label] if label < len(self.classes) else f'class {label}'


def network_of(source: ModelSource, *, layer: str | None = None, device: str = 'cpu') -> Network:
    """Return a model as a network to explain; a UserError for a wrong ``layer`` (None: the last stage) or device."""
    task, names = task_of(source.model, source.classes), source.classes
    if task.count == 2 and len(names) == 1:  # a segmentor of one class and the rest
        names = (BACKGROUND, *names)
    name = last_stage(source.model) if layer is None else layer_named(source.model, layer)
    model = place_on(source.model.requires_grad_(False), device)
    names = names if len(names) == task.count else ()
    return Network(**{**vars(source), 'model': model, 'classes': names}, task=task, layer=name)


def label_of(text: str, network: Network) -> int:
    """Return the index of the class that ``text`` names, by a name, one of several names, or the index itself."""
    wanted, names, count = text.strip().lower(), network.classes, network.task.count
    parts = [(part.strip().lower(), label) for label, name in enumerate(names) for part in name.split(',')]
    found = [label for label, name in enumerate(names) if name.strip().lower() == wanted]
    found = found or [label for part, label in parts if part == wanted]
    if not found and wanted.isdecimal() and int(wanted) < count:
        return int(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        hint = f'several classes of this name; give the index: {", ".join(map(str, found))}'
    elif wanted.isdecimal() or not names:
        hint = f'the classes 0 to {count - 1}{"" if names else " without names"}'
    else:
        near = difflib.get_close_matches(wanted, dict(parts), n=SHOWN, cutoff=0.6)
        hint = f'no such class; close matches: {", ".join(near)}' if near else f'only {join_some(names)}'
    raise UserError(f'--class {text}: {network.title} has {hint}')


def layer_named(model: nn.Module, name: str) -> str:
    """Return the full name of the layer that ``name`` means, of the model or its backbone; a UserError without one."""
    known = [key for key, _ in model.named_modules() if key]
    for candidate in (name, f'backbone.{name}', f'backbone.backbone.{name}'):
        if candidate in known:
            return candidate
    near = difflib.get_close_matches(f'backbone.{name.removeprefix("backbone.")}', known, n=SHOWN, cutoff=0)
    raise UserError(f'--layer {name}: the model has no such layer; it has {", ".join(near)}, ...')


def last_stage(model: Any) -> str:
    """Return the name of the layer whose output is the last one of the backbone; a UserError if it is unknown."""
    backbone: Any = getattr(model, 'backbone', None)
    backbone = getattr(backbone, 'backbone', backbone)  # out of a wrapper, such as mmres2net.WithStem
    last = None
    if hasattr(backbone, 'stage_modules'):
        last = backbone.stage_modules()[-1]
    elif hasattr(backbone, 'res_layers'):  # every ResNet of the OpenMMLab libraries
        last = backbone.get_submodule(backbone.res_layers[max(backbone.out_indices)])
    for name, module in model.named_modules():
        if module is last:
            return name
    raise UserError(f'the last stage of a {type(backbone or model).__name__} is unknown: name a layer with --layer')


def task_of(model: Any, classes: tuple[str, ...]) -> Task:
    """Return what can be explained of ``model``, whose class names are ``classes``; a UserError if nothing can."""
    if hasattr(model, 'decode_head') and hasattr(model, 'inference'):
        return _segmentation(model, classes)
    if type(model).__name__ in ('FasterRCNN', 'MaskRCNN'):
        head = model.roi_head
        if type(head).__name__ != 'StandardRoIHead' or getattr(head.bbox_head, 'custom_cls_channels', False):
            text = f'roi_head {type(head).__name__}'
            raise UserError(f'{text}: of detectors only StandardRoIHead with a softmax over its classes is supported')
        return Task(int(head.bbox_head.num_classes), lambda image, label: _detect(model, image, label))
    if getattr(model, 'head', None) is not None and hasattr(model, 'extract_feat'):
        count = int(getattr(model.head, 'num_classes', 0) or len(classes))
        if not count:
            raise UserError(f'the number of classes of {type(model.head).__name__} is unknown')
        return Task(count, lambda image, label: _classify(model, image, label))
    what = f'{type(model).__name__}: supported are classifiers of mmpretrain, segmentors of mmseg'
    raise UserError(f'{what}, Faster and Mask R-CNN; other models have no single score that a map could explain')


def _classify(model: Any, image: PreprocessedImage, label: int | None) -> tuple[Tensor, Explanation]:
    logits, kind = model(image.inputs, [image.sample], mode='tensor'), type(model.head).__name__
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f'{kind} gives no score for each class, so a map has nothing to explain')
    chosen = int(logits[0].argmax()) if label is None else label
    scores = logits[0].detach().float()
    score = float((scores.sigmoid() if 'MultiLabel' in kind else scores.softmax(0))[chosen])
    return logits[0, chosen], Explanation(chosen, score, f'{score:.3f}')


def _segmentation(model: Any, classes: tuple[str, ...]) -> Task:
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        what = f'model.test_cfg.mode={mode!r} runs the network several times for one image'
        raise UserError(f'{what}; give --cfg-options model.test_cfg.mode=whole')
    head: Any = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
    single = int(getattr(head, 'out_channels', 0) or head.num_classes) == 1
    threshold = float(getattr(head, 'threshold', None) or 0.5) if single else None
    has_background = single or (bool(classes) and classes[0].lower() == BACKGROUND)

    def explain(image: PreprocessedImage, label: int | None) -> tuple[Tensor, Explanation]:
        height, width = image.content
        logits = model.inference(image.inputs, [image.sample.metainfo])[0, :, :height, :width]
        return _of_map(logits, threshold, label, has_background=has_background)

    return Task(2 if single else int(head.num_classes), explain)


def _of_map(
    logits: Tensor, threshold: float | None, label: int | None, *, has_background: bool
) -> tuple[Tensor, Explanation]:
    """Return the sum of one class's logits (K, h, w), without padding, over its pixels, or over all if it has none.

    With a ``threshold`` there is one logit per pixel, whose probability is above it in the second of two classes. A
    ``label`` of None is the class with the most pixels, the background only if no other class is predicted.
    """
    if threshold is not None:
        predicted = (logits[0].sigmoid() > threshold).long()
        logits = torch.cat([-logits, logits])
        probabilities = logits.detach().float().sigmoid()
    else:
        predicted = logits.argmax(0)
        probabilities = logits.detach().float().softmax(0)
    counts = torch.bincount(predicted.flatten(), minlength=len(logits))
    if label is None:
        if has_background and counts[1:].any():
            counts[0] = 0
        label = int(counts.argmax())
    mask = predicted == label
    text = f'over its {float(mask.float().mean()):.1%} of the pixels'
    if not mask.any():
        text, mask = 'over all pixels; predicted nowhere', torch.ones_like(mask)
    score = float(probabilities[label][mask].mean())
    return logits[label][mask].sum(), Explanation(label, score, f'{score:.3f} {text}')


def _detect(model: Any, image: PreprocessedImage, label: int | None) -> tuple[Tensor, Explanation]:
    """Return the logit of the class of the best region, where the region proposed for it is held fixed."""
    features = model.extract_feat(image.inputs)
    with torch.no_grad():
        proposals = model.rpn_head.predict(features, [image.sample], rescale=False)[0].bboxes
        if not len(proposals):
            raise UserError('the model proposes no region in this image, so there is no detection to explain')
        regions = torch.cat([proposals.new_zeros(len(proposals), 1), proposals], 1)
        scores = _regions(model, features, regions)[0].softmax(1)[:, :-1]
    column = scores if label is None else scores[:, label : label + 1]
    index, place = divmod(int(column.argmax()), column.shape[1])
    chosen = place if label is None else label
    region = regions[index : index + 1]
    logits, deltas = _regions(model, features, region)
    score, least = float(scores[index, chosen]), float(model.test_cfg.rcnn.score_thr)
    text = f'{score:.3f}' if score >= least else f'{score:.3f}, below the threshold {least:g}'
    head, (height, width) = model.roi_head.bbox_head, image.inputs.shape[2:]
    own = deltas.detach().reshape(-1, 4)[0 if head.reg_class_agnostic else chosen][None]
    corners = head.bbox_coder.decode(region[:, 1:], own, max_shape=image.content)[0].detach().cpu().numpy()
    start, scale = image.window[:2], image.window[2:] / (height, width)  # down and right
    left, top, right, bottom = (float(x) for x in corners * np.tile(scale[::-1], 2) + np.tile(start[::-1], 2))
    return logits[0, chosen], Explanation(chosen, score, f'{text}, the best box', box=(left, top, right, bottom))


def _regions(model: Any, features: tuple[Tensor, ...], regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (n, K + 1) and box deltas of ``regions`` (n, 5), whose first column is the index of the image."""
    head = model.roi_head
    cut = head.bbox_roi_extractor(features[: head.bbox_roi_extractor.num_inputs], regions)
    logits, deltas = head.bbox_head(head.shared_head(cut) if head.with_shared_head else cut)
    return logits, deltas
