"""Classes and layers by name, with close matches for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn

from mmres2net.errors import UserError
from mmres2net.text import join_some

SHOWN = 5


def label_of(text: str, names: Sequence[str], count: int, title: str) -> int:
    """Return the index of the class that ``text`` names; a UserError if no class has the name, or several have.

    Args:
        text: A class name, one of several names separated by commas (as ImageNet has them), or an index from 0 on.
        names: All class names; empty where they are unknown.
        count: Number of classes.
        title: The network, for messages.
    """
    wanted = text.strip().lower()
    found = [label for label, name in enumerate(names) if name.strip().lower() == wanted]
    found = found or [label for label, name in enumerate(names) if wanted in _synonyms(name)]
    if len(found) > 1:
        listed = ', '.join(f'{label} ({names[label]})' for label in found)
        raise UserError(f'--class {text}: {title} has several classes of this name; give the index: {listed}')
    if found:
        return found[0]
    if wanted.isdecimal():
        if int(wanted) < count:
            return int(wanted)
        raise UserError(f'--class {text}: {title} has the classes 0 to {count - 1}')
    if not names:
        raise UserError(f'--class {text}: {title} has no class names; give an index below {count}')
    raise UserError(f'--class {text}: {title} has no such class; {_near_classes(wanted, names)}')


def _synonyms(name: str) -> list[str]:
    return [part.strip().lower() for part in name.split(',')]


def _near_classes(wanted: str, names: Sequence[str]) -> str:
    owners = {synonym: label for label, name in enumerate(names) for synonym in _synonyms(name)}
    near = difflib.get_close_matches(wanted, owners, n=SHOWN, cutoff=0.6)
    near += [synonym for synonym in owners if wanted in synonym and synonym not in near]
    if near:
        return f'close matches: {", ".join(near[:SHOWN])}'
    return f'it has {join_some(names)}'


def layer_named(model: nn.Module, name: str) -> str:
    """Return the full name of the layer that ``name`` means, of the model or its backbone; a UserError without one."""
    known = [key for key, _ in model.named_modules() if key]
    for candidate in (name, f'backbone.{name}', f'backbone.backbone.{name}'):
        if candidate in known:
            return candidate
    short = {key.removeprefix('backbone.'): key for key in known}
    near = [short[key] for key in difflib.get_close_matches(name.removeprefix('backbone.'), short, n=SHOWN, cutoff=0.6)]
    listed = f'close matches: {", ".join(near)}' if near else f'its parts are {", ".join(_parts(model))}'
    raise UserError(f'--layer {name}: the model has no such layer; {listed}')


def last_stage(model: Any) -> str:
    """Return the name of the layer whose output is the last one of the backbone; a UserError if it is unknown."""
    backbone: Any = getattr(model, 'backbone', None)
    if hasattr(backbone, 'backbone'):  # a wrapper, such as mmres2net.WithStem
        backbone = backbone.backbone
    last = None
    if hasattr(backbone, 'stage_modules'):
        last = backbone.stage_modules()[-1]
    elif hasattr(backbone, 'res_layers'):  # every ResNet of the OpenMMLab libraries
        last = backbone.get_submodule(backbone.res_layers[max(backbone.out_indices)])
    elif hasattr(backbone, 'transitions'):  # mmpretrain's DenseNet
        last = backbone.transitions[max(backbone.out_indices)]
    for name, module in model.named_modules():
        if module is last:
            return name
    raise UserError(
        f'the last stage of a {type(backbone or model).__name__} is unknown: name a layer with --layer, below one of '
        f'{", ".join(_parts(model))}'
    )


def _parts(model: Any) -> list[str]:
    """Return the names of the parts of the model and of its backbone."""
    parts = [name for name, _ in model.named_children() if name != 'data_preprocessor']
    backbone = getattr(model, 'backbone', None)
    return parts + [f'backbone.{name}' for name, _ in backbone.named_children()] if backbone is not None else parts
