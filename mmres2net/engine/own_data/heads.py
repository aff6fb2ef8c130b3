"""The heads of a model for other classes: their sizes, what their losses know of the classes, and top-k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mmres2net.data.check.config import class_heads
from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.text import join_some

FIXED = ('language_model', 'text_encoder', 'teacher_bbox_head')  # words of a text, or a trained teacher


def fit_heads(cfg: Config, classes: Sequence[str], title: str) -> list[str]:
    """Set everything in the model of ``cfg`` that counts classes, in place; return lines that say so.

    Raises:
        UserError: The model has no head for a list of classes.
    """
    nodes = dict(walk(cfg.model, 'model'))
    fixed = [f'{path}.{key}' for path, node in nodes.items() for key in FIXED if node.get(key)]
    heads = {path: (node, 'num_classes') for path, node in class_heads(cfg.model).items()}
    heads |= {path: (node, 'num_things_classes') for path, node in nodes.items() if 'num_things_classes' in node}
    if fixed or not heads:
        why = f'its classes are those of {fixed[0]}' if fixed else 'no head of the model has num_classes'
        raise UserError(f'{title} cannot be trained on classes of your own: {why}; choose another config')
    count, changed = len(classes), {}
    for path, (head, key) in heads.items():
        if head.get('num_stuff_classes'):
            raise UserError(f'{title} is panoptic ({path}.num_stuff_classes); choose one such as mask_rcnn_r2n50')
        changed[f'{path}.{key}'] = old = head[key]
        _fit_head(head, old, count)
        head[key] = count
        if 'topk' in head:
            head['topk'] = useful_topk(head['topk'], count)
    # What mixes labels or writes them as vectors: preprocessors, and augmentation of whole batches.
    places = {'model.': cfg.model.get('data_preprocessor'), '': cfg.get('data_preprocessor')}
    parts = {f'{place}data_preprocessor': part for place, part in places.items()}
    for place, part in {**parts, 'model.train_cfg': cfg.model.get('train_cfg')}.items():
        for path, node in walk(part or {}, place):
            if (old := node.get('num_classes')) in set(changed.values()):
                changed[f'{path}.num_classes'], node['num_classes'] = old, count
    olds = [old for old in dict.fromkeys(changed.values()) if old != count]
    return [f'{join_some([p for p, o in changed.items() if o == old], limit=3)} {old} -> {count}' for old in olds]


def _fit_head(head: dict[str, Any], old: int, count: int) -> None:
    """Set what a head and its losses have for each class, and for the background behind the classes."""
    binary = head.get('out_channels') == 1 and 'threshold' in head and count != 2  # mmseg's form for two classes
    for path, node in walk(head, ''):
        if node.get('num_classes') == old:
            node['num_classes'] = count
        weights = node.get('class_weight')
        if isinstance(weights, list | tuple):
            # Weights that differ are made for the classes of another data set.
            same = len(set(weights[:old])) == 1 and len(weights) in (old, old + 1)
            node['class_weight'] = [weights[0]] * count + list(weights[old:]) if same else None
        if binary and 'use_sigmoid' in node and 'loss' in path:
            node['use_sigmoid'] = False
    if binary:
        del head['out_channels'], head['threshold']
    elif head.get('out_channels') == old:
        head['out_channels'] = count


def useful_topk(topk: Any, count: int) -> tuple[int, ...]:
    """Return those of ``topk`` that are under the number of classes; accuracy is 100 % from there on."""
    values = tuple(topk) if isinstance(topk, list | tuple) else (topk,)
    return tuple(k for k in values if k < count) or (1,)
