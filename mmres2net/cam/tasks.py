"""The score that a map explains: of a classifier, a segmentor or a detector, from one forward pass.

All scores are taken before softmax or sigmoid, as in Grad-CAM: after it, a score also rises where another class falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmres2net.cam.image import PreprocessedImage
from mmres2net.cam.names import last_stage, layer_named
from mmres2net.engine.source import ModelSource, place_on
from mmres2net.errors import UserError

Array = npt.NDArray[Any]
BACKGROUND = 'background'


@dataclass(frozen=True)
class Explanation:
    """What is explained: the prediction of a class."""

    label: int
    score: float  # its probability; of a segmentor the mean over the pixels that are explained
    text: str  # the score, and the pixels or box that are explained
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom in pixels of the image
    mask: Array | None = None  # which pixels of the network's input are explained, (h, w) bool, without padding


Explain = Callable[[PreprocessedImage, int | None], tuple[Tensor, Explanation]]


@dataclass(frozen=True)
class Task:
    """What can be explained of a model."""

    count: int  # of classes
    explain: Explain  # the score to explain for an image and a class (None: the predicted one), and its explanation


@dataclass(frozen=True, kw_only=True)
class Network(ModelSource):
    """A model whose predictions are explained."""

    task: Task  # what can be explained
    layer: str  # whose map is drawn


def network_of(
    source: ModelSource, *, layer: str | None = None, device: str = 'cpu', all_pixels: bool = False
) -> Network:
    """Return a model as a network whose predictions are explained; its parameters get no gradients.

    Args:
        source: The model.
        layer: The layer whose map is drawn; None: the last stage of the backbone.
        device: Where the model runs.
        all_pixels: As in :func:`task_of`.

    Raises:
        UserError: There is no such layer or device, or nothing can be explained.
    """
    task, names = task_of(source.model, source.classes, all_pixels=all_pixels), source.classes
    if task.count == 2 and len(names) == 1:  # a segmentor of one class and the rest
        names = ('background', *names)
    name = last_stage(source.model) if layer is None else layer_named(source.model, layer)
    model = place_on(source.model.requires_grad_(False), device)
    names = names if len(names) == task.count else ()
    return Network(**{**vars(source), 'model': model, 'classes': names}, task=task, layer=name)


def task_of(model: Any, classes: tuple[str, ...], *, all_pixels: bool = False) -> Task:
    """Return what can be explained of ``model``; a UserError if nothing can.

    Args:
        model: The model.
        classes: Its class names, by which a background is recognized.
        all_pixels: Explain a segmentor's class at all pixels, not only where it is predicted.
    """
    if hasattr(model, 'decode_head') and hasattr(model, 'inference'):
        return _segmentation(model, classes, all_pixels)
    if all_pixels:
        raise UserError(f'--whole-map is for segmentors, and this is a {type(model).__name__}')
    if type(model).__name__ in ('FasterRCNN', 'MaskRCNN'):
        return _detection(model)
    if getattr(model, 'head', None) is not None and hasattr(model, 'extract_feat'):
        sigmoid = 'MultiLabel' in type(model.head).__name__
        return Task(_count(model.head, classes), lambda image, label: _classify(model, sigmoid, image, label))
    raise UserError(
        f'{type(model).__name__}: supported are classifiers of mmpretrain, segmentors of mmseg, Faster and Mask R-CNN '
        'of mmdet; other models have no single score that a map could explain'
    )


def _count(head: Any, classes: tuple[str, ...]) -> int:
    count = int(getattr(head, 'num_classes', 0) or len(classes))
    if not count:
        raise UserError(f'the number of classes of {type(head).__name__} is unknown')
    return count


def _classify(model: Any, sigmoid: bool, image: PreprocessedImage, label: int | None) -> tuple[Tensor, Explanation]:
    logits = model(image.inputs, [image.sample], mode='tensor')
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f'{type(model.head).__name__} gives no score for each class, so a map has nothing to explain')
    chosen = int(logits[0].argmax()) if label is None else label
    scores = logits[0].detach().float()
    score = float((scores.sigmoid() if sigmoid else scores.softmax(0))[chosen])
    return logits[0, chosen], Explanation(chosen, score, f'{score:.3f}')


def _segmentation(model: Any, classes: tuple[str, ...], all_pixels: bool) -> Task:
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        raise UserError(
            f'model.test_cfg.mode={mode!r} runs the network several times for one image; '
            'give --cfg-options model.test_cfg.mode=whole'
        )
    head: Any = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
    single = int(getattr(head, 'out_channels', 0) or head.num_classes) == 1
    threshold = float(getattr(head, 'threshold', None) or 0.5) if single else None
    has_background = single or (bool(classes) and classes[0].lower() == BACKGROUND)
    count = 2 if single else int(head.num_classes)

    def explain(image: PreprocessedImage, label: int | None) -> tuple[Tensor, Explanation]:
        height, width = image.content
        logits = model.inference(image.inputs, [image.sample.metainfo])[0, :, :height, :width]
        return _of_map(logits, threshold, label, has_background=has_background, all_pixels=all_pixels)

    return Task(count, explain)


def _of_map(
    logits: Tensor, threshold: float | None, label: int | None, *, has_background: bool, all_pixels: bool
) -> tuple[Tensor, Explanation]:
    """Return the sum of one class's logits (K, h, w) over its pixels.

    Args:
        logits: Without padding.
        threshold: For one logit per pixel: the probability from which on it is the second class; None: K classes.
        label: The class; None: that with the most pixels.
        has_background: Whether the first class is the background, which is chosen only if no other class is predicted.
        all_pixels: Sum over all pixels.
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
        ranked = counts.clone()
        ranked[0] = 0 if has_background and counts[1:].any() else counts[0]
        label = int(ranked.argmax())
    mask = predicted == label
    share = f'{float(mask.float().mean()):.1%} of the pixels'
    text = f'over its {share}'
    if all_pixels or not mask.any():
        text = f'over all pixels; predicted at {share}' if mask.any() else 'over all pixels; predicted nowhere'
        mask = torch.ones_like(mask)
    score = float(probabilities[label][mask].mean())
    return logits[label][mask].sum(), Explanation(label, score, f'{score:.3f} {text}', mask=mask.cpu().numpy())


def _detection(model: Any) -> Task:
    head = model.roi_head
    kind = type(head).__name__
    if kind != 'StandardRoIHead' or getattr(head.bbox_head, 'custom_cls_channels', False):
        raise UserError(
            f'roi_head {kind}: of detectors only StandardRoIHead with a softmax over its classes is supported'
        )
    return Task(int(head.bbox_head.num_classes), lambda image, label: _detect(model, image, label))


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
    best = int(column.argmax())
    index, chosen = best // column.shape[1], best % column.shape[1] if label is None else label
    region = regions[index : index + 1]
    logits, deltas = _regions(model, features, region)
    score = float(scores[index, chosen])
    least = float(model.test_cfg.rcnn.score_thr)
    text = f'{score:.3f}' if score >= least else f'{score:.3f}, below the threshold {least:g}'
    box = _box(model.roi_head.bbox_head, region, deltas.detach(), chosen, image)
    return logits[0, chosen], Explanation(chosen, score, f'{text}, the best box', box=box)


def _regions(model: Any, features: tuple[Tensor, ...], regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (n, K + 1) and box deltas of ``regions`` (n, 5), whose first column is the index of the image."""
    head = model.roi_head
    cut = head.bbox_roi_extractor(features[: head.bbox_roi_extractor.num_inputs], regions)
    if head.with_shared_head:
        cut = head.shared_head(cut)
    logits, deltas = head.bbox_head(cut)
    return logits, deltas


def _box(
    head: Any, region: Tensor, deltas: Tensor, label: int, image: PreprocessedImage
) -> tuple[float, float, float, float]:
    """Return the detected box in pixels of the image."""
    own = deltas.reshape(-1, 4)[0 if head.reg_class_agnostic else label][None]
    box = head.bbox_coder.decode(region[:, 1:], own, max_shape=image.content)[0].detach().cpu().numpy()
    height, width = image.inputs.shape[2:]
    window = image.window
    scale = np.array([window.width / width, window.height / height] * 2)
    left, top, right, bottom = box * scale + np.array([window.left, window.top] * 2)
    return float(left), float(top), float(right), float(bottom)
