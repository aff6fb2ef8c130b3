"""Which initial weights does a config load? The one place that answers.

MMEngine takes an ``init_cfg`` as a dict, a list or a tuple of dicts; the type of an initializer is a name, a name with
its package, or a class. Older options name a checkpoint as ``pretrained='URL'``.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple


class PretrainedNode(NamedTuple):
    """One checkpoint that a part of a model loads when it is initialized."""

    path: str  # of the checkpoint in the config, such as `model.backbone.init_cfg.1.checkpoint`
    checkpoint: Any  # the name, path or URL; whatever the config has there
    type: Any  # of the initializer; empty for `pretrained=...`
    is_last: bool = True  # no other initializer follows in the same list


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
    for where, part, key in _settings(model, path):
        if key != 'pretrained':
            for place, node, is_last in _initializers(part[key], where):
                yield PretrainedNode(f'{place}.checkpoint', node.get('checkpoint'), node.get('type'), is_last)
        elif part[key]:
            yield PretrainedNode(where, part[key], '')


def drop_pretrained(model: Any) -> None:
    """Remove from a model's config, in place, every initializer that loads a checkpoint; others stay."""
    for _, part, key in list(_settings(model, '')):
        without = False if isinstance(part[key], bool) else None
        part[key] = without if key == 'pretrained' else without_pretrained(part[key])


def _settings(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield path, dict and key of every ``init_cfg`` and ``pretrained`` below ``node``."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        if isinstance(key, str) and (key == 'pretrained' or key.endswith('init_cfg')):
            yield f'{path}.{key}', node, key
        else:
            yield from _settings(value, f'{path}.{key}')


def without_pretrained(init_cfg: Any) -> Any:
    """Return a copy of an ``init_cfg`` without what loads a checkpoint; None if nothing else is left."""
    if isinstance(init_cfg, list | tuple):
        return [entry for value in init_cfg if (entry := without_pretrained(value))] or None
    return None if loads_weights(init_cfg) else init_cfg


def _initializers(init_cfg: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield path, dict and whether it comes last for each initializer that loads a checkpoint."""
    if isinstance(init_cfg, list | tuple):
        for i, value in enumerate(init_cfg):
            for where, node, is_last in _initializers(value, f'{path}.{i}'):
                yield where, node, is_last and i + 1 == len(init_cfg)
    elif isinstance(init_cfg, Mapping):
        kind = init_cfg.get('type')
        names = [base.__name__ for base in kind.__mro__] if isinstance(kind, type) else [str(kind)]
        if any(name.endswith(('Pretrained', 'PretrainedInit')) for name in names):
            yield path, init_cfg, True
