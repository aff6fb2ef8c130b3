"""Which number a map explains: of a classifier, a segmentor, a detector; each found in one forward pass.

All are taken before softmax or sigmoid, as in Grad-CAM: behind it a score also rises where another class falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmres2net.cam.view import View
from mmres2net.errors import UserError

Array = npt.NDArray[Any]
BACKGROUND = 'background'


@dataclass(frozen=True)
class Found:
    """What a network says of an image about one class.

    Args:
        label: The class.
        score: Its probability; of a segmentor the mean over the pixels that are explained.
        words: What is explained, and how likely it is.
        box: Of a detector, (left, top, right, bottom) in pixels of the image.
        mask: Of a segmentor, which pixels of the network's input are explained, (h, w) bool, without padding.
    """

    label: int
    score: float
    words: str
    box: tuple[float, float, float, float] | None = None
    mask: Array | None = None


Explain = Callable[[View, int | None], tuple[Tensor, Found]]


@dataclass(frozen=True)
class Task:
    """What can be explained of a model.

    Args:
        kind: ``classification``, ``segmentation`` or ``detection``.
        count: How many classes there are.
        explain: Returns the number to explain for a view and a class (None: the surest), and what was found.
    """

    kind: str
    count: int
    explain: Explain


def task_of(model: Any, classes: tuple[str, ...], *, everywhere: bool = False) -> Task:
    """Return what can be explained of ``model``.

    Args:
        model: The model as its host builds it.
        classes: The names of its classes, to know a background by.
        everywhere: Explain a segmentor's class at all pixels, not at those that it is predicted at.

    Raises:
        UserError: Nothing can.
    """
    if hasattr(model, 'decode_head') and hasattr(model, 'inference'):
        return _segmentation(model, classes, everywhere)
    if everywhere:
        raise UserError(f'--whole-map is for segmentors, and this is a {type(model).__name__}')
    if type(model).__name__ in ('FasterRCNN', 'MaskRCNN'):
        return _detection(model)
    if getattr(model, 'head', None) is not None and hasattr(model, 'extract_feat'):
        sigmoid = 'MultiLabel' in type(model.head).__name__
        return Task(
            'classification', _count(model.head, classes), lambda view, label: _classify(model, sigmoid, view, label)
        )
    raise UserError(
        f'{type(model).__name__}: maps are made for classifiers of mmpretrain, segmentors of mmseg, Faster and Mask '
        'R-CNN of mmdet; of others no single score is known that a map could explain'
    )


def _count(head: Any, classes: tuple[str, ...]) -> int:
    count = int(getattr(head, 'num_classes', 0) or len(classes))
    if not count:
        raise UserError(f'how many classes {type(head).__name__} has cannot be told')
    return count


def _classify(model: Any, sigmoid: bool, view: View, label: int | None) -> tuple[Tensor, Found]:
    logits = model(view.inputs, [view.sample], mode='tensor')
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f'{type(model.head).__name__} gives no score for each class, so there is none to explain')
    chosen = int(logits[0].argmax()) if label is None else label
    scores = logits[0].detach().float()
    score = float((scores.sigmoid() if sigmoid else scores.softmax(0))[chosen])
    return logits[0, chosen], Found(chosen, score, f'{score:.3f}')


def _segmentation(model: Any, classes: tuple[str, ...], everywhere: bool) -> Task:
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        raise UserError(
            f'model.test_cfg.mode={mode!r} runs the network several times for one image; '
            'give --cfg-options model.test_cfg.mode=whole'
        )
    head: Any = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
    single = int(getattr(head, 'out_channels', 0) or head.num_classes) == 1
    threshold = float(getattr(head, 'threshold', None) or 0.5) if single else None
    spare = single or (bool(classes) and classes[0].lower() == BACKGROUND)
    count = 2 if single else int(head.num_classes)

    def explain(view: View, label: int | None) -> tuple[Tensor, Found]:
        height, width = view.content
        logits = model.inference(view.inputs, [view.sample.metainfo])[0, :, :height, :width]
        return _of_map(logits, threshold, label, spare=spare, everywhere=everywhere)

    return Task('segmentation', count, explain)


def _of_map(
    logits: Tensor, threshold: float | None, label: int | None, *, spare: bool, everywhere: bool
) -> tuple[Tensor, Found]:
    """Return the sum of one class's logits (K, h, w) over its pixels.

    Args:
        logits: Without padding.
        threshold: Of one logit a pixel, the probability from which on it is the second class; None: K classes.
        label: The class; None: that of the most pixels.
        spare: Whether the first class is the background, which is not chosen while there is another.
        everywhere: Sum over all pixels.
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
        ranked[0] = 0 if spare and counts[1:].any() else counts[0]
        label = int(ranked.argmax())
    mask = predicted == label
    share = f'{float(mask.float().mean()):.1%} of the pixels'
    words = f'over its {share}'
    if everywhere or not mask.any():
        words = f'over all pixels; predicted at {share}' if mask.any() else 'over all pixels; predicted nowhere'
        mask = torch.ones_like(mask)
    score = float(probabilities[label][mask].mean())
    return logits[label][mask].sum(), Found(label, score, f'{score:.3f} {words}', mask=mask.cpu().numpy())


def _detection(model: Any) -> Task:
    head = model.roi_head
    kind = type(head).__name__
    if kind != 'StandardRoIHead' or getattr(head.bbox_head, 'custom_cls_channels', False):
        raise UserError(
            f'roi_head {kind}: maps of detectors are made for StandardRoIHead with a softmax over its classes'
        )
    return Task('detection', int(head.bbox_head.num_classes), lambda view, label: _detect(model, view, label))


def _detect(model: Any, view: View, label: int | None) -> tuple[Tensor, Found]:
    """Return the logit of the class of the best region, where the region proposed for it is held fixed."""
    features = model.extract_feat(view.inputs)
    with torch.no_grad():
        proposals = model.rpn_head.predict(features, [view.sample], rescale=False)[0].bboxes
        if not len(proposals):
            raise UserError('no region is proposed in this image, so there is no detection to explain')
        regions = torch.cat([proposals.new_zeros(len(proposals), 1), proposals], 1)
        scores = _regions(model, features, regions)[0].softmax(1)[:, :-1]
    column = scores if label is None else scores[:, label : label + 1]
    best = int(column.argmax())
    index, chosen = best // column.shape[1], best % column.shape[1] if label is None else label
    region = regions[index : index + 1]
    logits, deltas = _regions(model, features, region)
    score = float(scores[index, chosen])
    least = float(model.test_cfg.rcnn.score_thr)
    words = f'{score:.3f}' if score >= least else f'{score:.3f}, below the {least:g} that is shown'
    box = _box(model.roi_head.bbox_head, region, deltas.detach(), chosen, view)
    return logits[0, chosen], Found(chosen, score, f'{words}, the best box', box=box)


def _regions(model: Any, features: tuple[Tensor, ...], regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (n, K + 1) and box deltas of ``regions`` (n, 5), whose first column is the image's number."""
    head = model.roi_head
    cut = head.bbox_roi_extractor(features[: head.bbox_roi_extractor.num_inputs], regions)
    if head.with_shared_head:
        cut = head.shared_head(cut)
    logits, deltas = head.bbox_head(cut)
    return logits, deltas


def _box(head: Any, region: Tensor, deltas: Tensor, label: int, view: View) -> tuple[float, float, float, float]:
    """Return the detected box in pixels of the image."""
    own = deltas.reshape(-1, 4)[0 if head.reg_class_agnostic else label][None]
    box = head.bbox_coder.decode(region[:, 1:], own, max_shape=view.content)[0].detach().cpu().numpy()
    height, width = view.inputs.shape[2:]
    window = view.window
    scale = np.array([window.width / width, window.height / height] * 2)
    left, top, right, bottom = box * scale + np.array([window.left, window.top] * 2)
    return float(left), float(top), float(right), float(bottom)
