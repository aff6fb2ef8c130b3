"""Which initial weights does a config load? The one place that answers.

MMEngine takes an ``init_cfg`` as a dict, a list or a tuple of dicts; the type of an initializer is a name, a name with
its package, or a class; an initializer may hold others under ``override``. Older options name a checkpoint as
``pretrained='URL'``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TYPES = ('Pretrained', 'PretrainedInit')


@dataclass(frozen=True)
class PretrainedNode:
    """One checkpoint that a part of a model loads when it is initialized.

    Attributes:
        path: Path of the checkpoint in the config, such as ``model.backbone.init_cfg.1.checkpoint``.
        checkpoint: The name, path or URL; whatever the config has there.
        type: Type of the initializer; empty for ``pretrained=...``.
        module: The part of the model, such as the backbone.
        is_last: No other initializer follows in the same list.
    """

    path: str
    checkpoint: Any
    type: Any
    module: dict[str, Any]
    is_last: bool = True


@contextmanager
def quiet_initialization() -> Iterator[None]:
    """Within the block log lines below errors, such as MMEngine's on every parameter, and warnings are not shown."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


def loads_weights(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` loads a checkpoint: MMEngine's ``Pretrained`` or ours, alone or among others."""
    return next(_initializers(init_cfg, ''), None) is not None


def pretrained_nodes(model: Any, path: str = 'model') -> Iterator[PretrainedNode]:
    """Yield every checkpoint that a model's config loads, by ``init_cfg`` or ``pretrained``, outermost first."""
    if isinstance(model, Mapping):
        for key, value in model.items():
            if _is_init_cfg(key):
                for where, node, is_last in _initializers(value, f'{path}.{key}'):
                    yield PretrainedNode(
                        f'{where}.checkpoint', node.get('checkpoint'), node.get('type'), dict(model), is_last
                    )
            elif key == 'pretrained' and value:
                yield PretrainedNode(f'{path}.{key}', value, '', dict(model))
            else:
                yield from pretrained_nodes(value, f'{path}.{key}')
    elif isinstance(model, list | tuple):
        for i, value in enumerate(model):
            yield from pretrained_nodes(value, f'{path}.{i}')


def drop_pretrained(model: Any) -> None:
    """Remove from a model's config, in place, every initializer that loads a checkpoint; others stay."""
    if isinstance(model, dict):
        for key, value in model.items():
            if _is_init_cfg(key):
                model[key] = without_pretrained(value)
            elif key == 'pretrained':
                model[key] = False if value is True else value if value is False else None
            else:
                drop_pretrained(value)
    elif isinstance(model, list | tuple):
        for value in model:
            drop_pretrained(value)


def without_pretrained(init_cfg: Any) -> Any:
    """Return a copy of an ``init_cfg`` without what loads a checkpoint; None if nothing else is left."""
    if isinstance(init_cfg, list | tuple):
        kept = [entry for value in init_cfg if (entry := without_pretrained(value))]
        return kept or None
    if not isinstance(init_cfg, Mapping) or not loads_weights(init_cfg):
        return init_cfg
    if _is_pretrained_type(init_cfg.get('type')):
        return None
    rest = {key: without_pretrained(value) if key == 'override' else value for key, value in init_cfg.items()}
    return {key: value for key, value in rest.items() if key != 'override' or value}


def _initializers(init_cfg: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield path, dict and whether it comes last for each initializer that loads a checkpoint."""
    if isinstance(init_cfg, list | tuple):
        for i, value in enumerate(init_cfg):
            for where, node, is_last in _initializers(value, f'{path}.{i}'):
                yield where, node, is_last and i + 1 == len(init_cfg)
    elif isinstance(init_cfg, Mapping):
        if _is_pretrained_type(init_cfg.get('type')):
            yield path, init_cfg, True
        yield from _initializers(init_cfg.get('override'), f'{path}.override')


def _is_pretrained_type(kind: Any) -> bool:
    names = [base.__name__ for base in kind.__mro__] if isinstance(kind, type) else [str(kind).rpartition('.')[2]]
    return any(name.endswith(TYPES) for name in names)


def _is_init_cfg(key: Any) -> bool:
    return isinstance(key, str) and key.endswith('init_cfg')
