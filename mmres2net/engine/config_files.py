"""How config files are read: MMEngine's reader, with three changes for the whole process once this is imported.

YAML is data, not a program: MMEngine's own reader calls whatever a tag names. ``_base_ = 'mmres2net::NAME'`` inherits a
shipped config by its name. A config that inherits itself is an error instead of a thousand nested copies of it.
"""

from __future__ import annotations

import os
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import YamlHandler

from mmres2net.paths import OWN, find_config

MOST_NODES = 10**6  # aliases count as often as they are used: a file of 500 bytes can stand for a billion values
BASES: dict[str, set[str]] = {}  # of each config file read: those it inherits; cleared before each config
_mmengines_path = Config._get_cfg_path


@register_handler(['yaml', 'yml'])
class SafeYamlHandler(YamlHandler):
    """Reads YAML of plain values, with bounded aliases."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Return the content of an open file.

        Raises:
            ValueError: A tag that is no plain value, aliases that multiply or contain themselves, or no dict at all.
        """
        text = file.read()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and _size(root, {}) > MOST_NODES:
            raise ValueError(f'its aliases stand for more than {MOST_NODES:,} values')
        return yaml.safe_load(text)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values below ``node``; an alias is the same node once more."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_NODES  # for a node that contains itself
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        sizes[id(node)] = 1 + sum(_size(part, sizes) for child in children for part in (child if pairs else (child,)))
    return sizes[id(node)]


def _base_path(base: str, filename: str) -> tuple[str, str | None]:
    """Return the path of a config that ``filename`` inherits, and its scope.

    Raises:
        ValueError: The config inherits itself.
    """
    found = (str(find_config(base)), None) if base.startswith(OWN) else _mmengines_path(base, filename)
    child, parent = os.path.realpath(filename), os.path.realpath(found[0])
    BASES.setdefault(child, set()).add(parent)
    if child in _inherited(parent, set()):
        raise ValueError(f'{child} inherits itself, by way of {parent}')
    return found


def _inherited(path: str, seen: set[str]) -> set[str]:
    """Return ``path`` and all configs that it inherits, as far as they were read."""
    if path not in seen:
        seen.add(path)
        for base in BASES.get(path, ()):
            _inherited(base, seen)
    return seen


Config._get_cfg_path = staticmethod(_base_path)
