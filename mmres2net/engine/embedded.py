"""The config that MMEngine keeps in a checkpoint, read as data: no line of it is run.

MMEngine writes the text of the config, a Python program, into ``meta.cfg``. Its assignments of plain values are read
here. A model is built only from values by which the OpenMMLab libraries run nothing but their own classes: no ``type``
that is imported by its path, no text that mmcv would pass to ``eval``, no file that would be unpickled or run.
"""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.config import Config
from mmengine.registry import registry

from mmres2net.engine.build import building
from mmres2net.errors import UserError

BUILT = ('model', 'data_preprocessor')  # entries that are built, like every pipeline
KEYS = (*BUILT, 'test_dataloader', 'val_dataloader', 'default_scope', 'custom_imports')
LIBRARIES = 'mmengine|mmcv|mmdet|mmseg|mmpretrain|mmres2net'
TYPE = re.compile(rf'(({LIBRARIES})\.)?[A-Za-z_][\w/]*')
SCOPE, MODULE = re.compile(LIBRARIES), re.compile(rf'({LIBRARIES})(\.[a-z]\w*)*')
PROGRAM = re.compile(r'[(`]|\.(py|pkl|pickle)$')  # no text of a model needs a call; mmcv.ops.nms evaluates its type
MAX_TEXT = 10**6
NUMBERS = {'inf': float('inf'), 'nan': float('nan')}


def saved_config(text: Any) -> dict[str, Any]:
    """Return the entries of a config that MMEngine wrote as Python text, without those that are no plain values.

    Nothing of the text is run: it is parsed, and only literals and ``dict(...)`` are understood.
    """
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
    """Return what the config in a checkpoint says about model and test data; the modules that it names are imported.

    A UserError says that there is none, or that it is more than data.
    """
    meta = content.get('meta')
    values = saved_config(meta.get('cfg')) if isinstance(meta, dict) else {}
    values = {key: values[key] for key in KEYS if key in values}
    if not isinstance(values.get('model'), dict):
        raise UserError('it holds no config whose model is plain data (meta.cfg)')
    try:
        modules = check_values(values)
    except (ValueError, RecursionError) as error:
        raise UserError(f'its config is refused: {error}') from error
    with building('its config'):
        for module in modules:
            importlib.import_module(module)
        return Config(values)


def check_values(values: Mapping[str, Any]) -> list[str]:
    """Check that building from these values runs nothing but classes of the OpenMMLab libraries; return the imports.

    A ValueError has the entry that would, or could, run something else.
    """
    scope, imports = values.get('default_scope'), values.get('custom_imports') or {}
    if scope is not None and not (isinstance(scope, str) and SCOPE.fullmatch(scope)):
        raise ValueError(f'default_scope={scope!r}')
    named = imports.get('imports') if isinstance(imports, dict) else imports
    modules = list(named) if isinstance(named, list | tuple) else [named] if named else []
    for name in modules:
        if not (isinstance(name, str) and MODULE.fullmatch(name)):
            raise ValueError(f'custom_imports={name!r} is no module of an OpenMMLab library')
    for key, value in values.items():
        for path, text in _texts(value, (key,)):
            built = (key in BUILT or 'pipeline' in path) and path[-1] != 'classes'
            if (path[-1] == 'type' and not TYPE.fullmatch(text)) or (built and PROGRAM.search(text)):
                raise ValueError(f'{".".join(path)}={text[:80]!r} may run a program')
    return modules


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
