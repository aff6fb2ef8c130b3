"""The config that MMEngine keeps in a checkpoint (``meta.cfg``, a Python program), read as data: no line of it is run.

A model is built only from values by which the OpenMMLab libraries run nothing but their own classes: no ``type`` that
is imported by its path, no text that mmcv would pass to ``eval``, no file that would be unpickled or run.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.config import Config
from mmengine.registry import registry

from mmres2net.errors import UserError

BUILT = ('model', 'data_preprocessor')  # entries that are built, like every pipeline
KEYS = (*BUILT, 'test_dataloader', 'val_dataloader', 'default_scope', 'custom_imports')
LIBRARIES = 'mmengine|mmcv|mmdet|mmseg|mmpretrain|mmres2net'
TYPE = re.compile(rf'(({LIBRARIES})\.)?[A-Za-z_][\w/]*')
SCOPE = re.compile(LIBRARIES)
PROGRAM = re.compile(r'[(`]|\.(py|pkl|pickle)$')  # no text of a model needs a call; mmcv.ops.nms evaluates its type
MAX_TEXT = 10**6
NUMBERS = {'inf': float('inf'), 'nan': float('nan')}


def saved_config(text: Any) -> dict[str, Any]:
    """Return the entries of a config that MMEngine wrote as Python text and that are literals or ``dict(...)``."""
    values: dict[str, Any] = {}
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return values
    try:
        for line in ast.parse(text).body:
            if isinstance(line, ast.Assign) and isinstance(name := line.targets[0], ast.Name):
                values.pop(name.id, None)
                with suppress(ValueError, TypeError):
                    values[name.id] = _literal(line.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return values


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and len(node.args) < 2:
        first = _literal(node.args[0]) if node.args else {}  # MMEngine writes dict({...}) of keys that are no names
        return {**first, **{str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}}
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) if key else None for key in node.keys]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(value) for value in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return NUMBERS[node.id] if isinstance(node, ast.Name) and node.id in NUMBERS else ast.literal_eval(node)


def embedded_config(content: Mapping[str, Any]) -> Config:
    """Return what the config in a checkpoint says about model and test data; a UserError if that is more than data."""
    meta = content.get('meta')
    values = saved_config(meta.get('cfg')) if isinstance(meta, dict) else {}
    values = {key: values[key] for key in KEYS if key in values}
    if not isinstance(values.get('model'), dict):
        raise UserError('it holds no config whose model is plain data (meta.cfg)')
    try:
        check_values(values)
    except (ValueError, RecursionError) as error:
        raise UserError(f'its config is refused: {error}') from error
    values.pop('custom_imports', None)  # MMEngine finds classes of the libraries by scope and prefix
    return Config(values)


def check_values(values: Mapping[str, Any]) -> None:
    """Check that building from these values runs nothing but classes of the OpenMMLab libraries, else a ValueError."""
    scope = values.get('default_scope')
    if scope is not None and not (isinstance(scope, str) and SCOPE.fullmatch(scope)):
        raise ValueError(f'default_scope={scope!r}')
    for key, value in values.items():
        for path, text in _texts(value, (key,)):
            built = (key in BUILT or 'pipeline' in path) and path[-1] != 'classes'
            foreign = key == 'custom_imports' and not SCOPE.match(text)
            if foreign or (path[-1] == 'type' and not TYPE.fullmatch(text)) or (built and PROGRAM.search(text)):
                raise ValueError(f'{".".join(path)}={text[:80]!r} may run a program')


def _texts(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each text in a value with the keys that lead to it."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(value, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, path)


@contextmanager
def registered_only() -> Iterator[None]:
    """Within the block MMEngine's registries build what is registered, and import nothing by its path."""
    before = registry.get_object_from_string
    registry.get_object_from_string = lambda name: None
    try:
        yield
    finally:
        registry.get_object_from_string = before
