"""Classes and layers by name: what a name means, and what comes close where it means nothing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn

from mmres2net.errors import UserError

SHOWN = 5


def name_of(names: Sequence[str], label: int) -> str:
    """Return the name of a class, or its number where nobody knows its name."""
    return names[label] if label < len(names) else f'class {label}'


def label_of(text: str, names: Sequence[str], count: int, owner: str) -> int:
    """Return the number of the class that ``text`` names.

    Args:
        text: A name, one of the names that stand in it separated by commas (as ImageNet's), or a number from 0 on.
        names: The names of all classes; none where nobody knows them.
        count: How many classes there are.
        owner: Whose classes they are, for the message.

    Raises:
        UserError: No class has the name, or several have.
    """
    wanted = text.strip().lower()
    found = [label for label, name in enumerate(names) if name.strip().lower() == wanted]
    found = found or [label for label, name in enumerate(names) if wanted in _synonyms(name)]
    if len(found) > 1:
        listed = ', '.join(f'{label} ({names[label]})' for label in found)
        raise UserError(f'--class {text}: {owner} has several classes of this name; give the number: {listed}')
    if found:
        return found[0]
    if wanted.isdecimal():
        if int(wanted) < count:
            return int(wanted)
        raise UserError(f'--class {text}: {owner} has the classes 0 to {count - 1}')
    if not names:
        raise UserError(
            f'--class {text}: nobody knows the names of the classes of {owner}; give a number below {count}'
        )
    raise UserError(f'--class {text}: {owner} has no such class; {_near_classes(wanted, names)}')


def _synonyms(name: str) -> list[str]:
    return [part.strip().lower() for part in name.split(',')]


def _near_classes(wanted: str, names: Sequence[str]) -> str:
    owners = {synonym: label for label, name in enumerate(names) for synonym in _synonyms(name)}
    near = difflib.get_close_matches(wanted, owners, n=SHOWN, cutoff=0.6)
    near += [synonym for synonym in owners if wanted in synonym and synonym not in near]
    if near:
        return f'close matches: {", ".join(near[:SHOWN])}'
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return f'it has {", ".join(names[:SHOWN])}{more}'


def layer_named(model: nn.Module, name: str) -> str:
    """Return the full name of the layer that ``name`` means: a module of the model, or of its backbone.

    Raises:
        UserError: There is none.
    """
    known = [key for key, _ in model.named_modules() if key]
    for candidate in (name, f'backbone.{name}', f'backbone.backbone.{name}'):
        if candidate in known:
            return candidate
    short = {key.removeprefix('backbone.'): key for key in known}
    near = [short[key] for key in difflib.get_close_matches(name.removeprefix('backbone.'), short, n=SHOWN, cutoff=0.6)]
    listed = f'close matches: {", ".join(near)}' if near else f'its parts: {", ".join(_parts(model))}'
    raise UserError(f'--layer {name}: the model has no such layer; {listed}')


def last_stage(model: Any) -> str:
    """Return the name of the layer whose output is the last that the backbone gives.

    Raises:
        UserError: It cannot be told.
    """
    backbone: Any = getattr(model, 'backbone', None)
    if hasattr(backbone, 'backbone'):  # a wrapper, such as mmres2net.WithStem
        backbone = backbone.backbone
    last = None
    if hasattr(backbone, 'stage_modules'):
        last = backbone.stage_modules()[-1]
    elif hasattr(backbone, 'res_layers'):  # every ResNet of the hosts
        last = backbone.get_submodule(backbone.res_layers[max(backbone.out_indices)])
    elif hasattr(backbone, 'transitions'):  # mmpretrain's DenseNet
        last = backbone.transitions[max(backbone.out_indices)]
    for name, module in model.named_modules():
        if module is last:
            return name
    raise UserError(
        f'which layer of a {type(backbone or model).__name__} is its last stage cannot be told: name one with --layer, '
        f'below one of {", ".join(_parts(model))}'
    )


def _parts(model: Any) -> list[str]:
    """Return the names of the model's parts, with those of the backbone's."""
    parts = [name for name, _ in model.named_children() if name != 'data_preprocessor']
    backbone = getattr(model, 'backbone', None)
    return parts + [f'backbone.{name}' for name, _ in backbone.named_children()] if backbone is not None else parts
