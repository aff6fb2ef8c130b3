"""Which graph a model becomes: whole where it is known how, else its backbone, with the reason."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmres2net.errors import UserError
from mmres2net.export import detector, segmentor
from mmres2net.export.backbone import BackboneGraph, check_exportable
from mmres2net.export.blocks import rewritten
from mmres2net.export.pixels import pixels_of
from mmres2net.export.source import Source, resize_of
from mmres2net.predict.facts import Facts

PARTS = ('whole', 'backbone')
Axes = dict[str, dict[int, str]]
IMAGE = {0: 'batch', 2: 'height', 3: 'width'}


def graph_of(source: Source, part: str | None, size: tuple[int, int] | None) -> tuple[nn.Module, Facts, Axes, str]:
    """Return the graph of a model, its facts, which dimensions of its outputs vary, and what there is to say.

    Args:
        source: The model.
        part: One of :data:`PARTS`; None: whole where it can be.
        size: Height and width, where the file takes images of that size alone.

    Raises:
        UserError: The part cannot be exported; the message says why.
    """
    why = '' if part == 'backbone' else refusal(source.model)
    if part == 'whole' and why:
        raise UserError(f'this model cannot be exported whole: {why}; --part backbone exports its backbone')
    if not hasattr(source.model, 'backbone'):
        raise UserError(f'a {type(source.model).__name__} has no backbone: there is nothing to export')
    model = rewritten(source.model)
    whole = part != 'backbone' and not why
    check_exportable(model if whole else model.backbone)
    if not whole:
        note = f'the backbone alone is exported: {why}' if why else ''
        return *_backbone(source, model, size), note
    if hasattr(model, 'roi_head'):
        return *_detector(source, model, size), ''
    return *_segmentor(source, model, size), ''


def refusal(model: Any) -> str:
    """Return why a model cannot be exported whole; nothing where it can."""
    if hasattr(model, 'decode_head'):
        return segmentor.refusal(model)
    if hasattr(model, 'bbox_head') or hasattr(model, 'roi_head'):
        return detector.refusal(model)
    return f'whole models are Faster and Mask R-CNN and segmentors, not {type(model).__name__}'


def _backbone(source: Source, model: Any, size: tuple[int, int] | None) -> tuple[nn.Module, Facts, Axes]:
    indices = getattr(model.backbone, 'out_indices', None) or (len(getattr(model.backbone, 'out_channels', '?')) - 1,)
    names = tuple(f'stage{index}' for index in indices)
    strides = tuple(int(stride) for stride in getattr(model.backbone, 'out_strides', ()))
    facts = Facts('backbone', names, strides=strides, **_shared(source, size))
    module = BackboneGraph(pixels_of(source.cfg, pad=False), model.backbone).eval()
    return module, facts, _free(dict.fromkeys(names, IMAGE), size)


def _segmentor(source: Source, model: Any, size: tuple[int, int] | None) -> tuple[nn.Module, Facts, Axes]:
    module = segmentor.SegmentorGraph(pixels_of(source.cfg, pad=True), model).eval()
    names = ('logits', 'classes')
    facts = Facts('segmentation', names, align_corners=module.align_corners, **_shared(source, size))
    return module, facts, _free({'logits': IMAGE, 'classes': {0: 'batch', 1: 'height', 2: 'width'}}, size)


def _detector(source: Source, model: Any, size: tuple[int, int] | None) -> tuple[nn.Module, Facts, Axes]:
    module = detector.DetectorGraph(pixels_of(source.cfg, pad=True), model).eval()
    names = ('boxes', 'scores', 'labels') + (('masks',) if module.masks else ())
    settings = model.roi_head.test_cfg
    facts = Facts(
        'detection',
        names,
        batch=False,
        score_threshold=float(settings.score_thr),
        mask_threshold=float(settings.get('mask_thr_binary', 0.5)),
        **_shared(source, size),
    )
    return module, facts, {name: {0: 'detections'} for name in names}


def _shared(source: Source, size: tuple[int, int] | None) -> dict[str, Any]:
    scale, keep = resize_of(source.cfg)
    pixels = pixels_of(source.cfg, pad=False)
    mean = [round(float(value)) for value in pixels.get_buffer('mean').flatten()]
    return {
        'source': source.words,
        'classes': source.classes,
        'palette': source.palette,
        'size': size,
        'scale': scale,
        'keep_ratio': keep,
        'fill': tuple(mean[::-1] if pixels.swap else mean),
    }


def _free(axes: Axes, size: tuple[int, int] | None) -> Axes:
    """Return ``axes`` with the batch alone where the size is fixed."""
    return {name: {0: 'batch'} if size else dict(found) for name, found in axes.items()}
