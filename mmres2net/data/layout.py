"""Point any config at a folder: ``--data DIR``.

A config names its data as a root folder and paths below it, in the data set's standard layout. Pointing it at a folder
means: find in that folder the place that has those paths, and put it wherever the config names the old root.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.errors import UserError

PARTS = ('train', 'val', 'test')


def walk(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every dict in a part of a config with its path, parents first."""
    if isinstance(node, dict):
        yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in list(items):
        yield from walk(value, f'{path}.{key}')


def datasets_of(cfg: Config, part: str) -> list[dict[str, Any]]:
    """Return the data set dicts of a part of the config, out of whatever wraps them; none where the part is absent."""
    return list(_find_datasets(cfg.get(f'{part}_dataloader') or {}))


def _find_datasets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if 'ann_file' in node or 'data_root' in node:
            yield node
        else:
            for value in node.values():
                yield from _find_datasets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _find_datasets(value)


def needed_paths(dataset: dict[str, Any]) -> list[str]:
    """Return the files and folders that a data set dict names, relative to its root where they are."""
    prefix = dataset.get('data_prefix')
    named = [dataset.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    return [path for path in named if isinstance(path, str) and path]


def point_at(cfg: Config, folder: str | Path, parts: Sequence[str] = PARTS) -> Config:
    """Return a copy of ``cfg`` that reads its data from ``folder``.

    Args:
        cfg: A config of any host; it stays as it is.
        folder: The root itself, or a folder that holds it (the parent of ``VOCdevkit``, say).
        parts: The parts that must be there: of ``train``, ``val``, ``test``. The others follow where they share a root.

    Raises:
        UserError: No such folder, a layout that does not fit, or a config without data roots.
    """
    base = Path(folder).expanduser()
    if not base.is_dir():
        raise UserError(f'--data {folder}: no such folder')
    cfg = copy.deepcopy(cfg)
    by_root: dict[str, list[str]] = {}
    for part in PARTS:
        for dataset in datasets_of(cfg, part):
            paths = by_root.setdefault(dataset.get('data_root') or '', [])
            paths.extend(needed_paths(dataset) if part in parts else [])
    by_root.pop('', None)
    if not by_root:
        raise UserError(f'--data {folder}: this config names no data_root, so there is nothing to point at the folder')
    for old, paths in by_root.items():
        _replace_root(cfg, old, str(_find_root(base, old, paths)))
    return cfg


def _find_root(base: Path, old: str, paths: list[str]) -> Path:
    """Return the folder in or at ``base`` that has all ``paths``."""
    steps = Path(old).parts
    inside = [base.joinpath(*steps[-n:]) for n in range(1, len(steps) + 1) if not Path(old).is_absolute()]
    candidates = [base, *inside, base.resolve().parent]
    for candidate in candidates:
        if all((candidate / path).exists() for path in paths):
            return candidate
    nearest = max(candidates[:-1], key=lambda c: sum((c / path).exists() for path in paths))
    missing = sorted({path for path in paths if not (nearest / path).exists()})
    there = sorted(entry.name + ('/' if entry.is_dir() else '') for entry in base.iterdir())
    raise UserError(
        f'--data {base}: the layout does not fit this config.\n'
        f'  missing below {nearest}: {", ".join(missing)}\n'
        f'  found in {base}: {", ".join(there[:12]) + (" ..." if len(there) > 12 else "") or "nothing"}\n'
        f'  give the folder that stands for {old!r} in the config, or one that holds it'
    )


def _replace_root(cfg: Config, old: str, new: str) -> None:
    for part in PARTS:
        for dataset in datasets_of(cfg, part):
            if dataset.get('data_root') == old:
                dataset['data_root'] = new
        _replace_prefix(cfg.get(f'{part}_evaluator'), old, new)


def _replace_prefix(node: Any, old: str, new: str) -> None:
    """Replace ``old`` at the head of every path in ``node``: evaluators name their files with the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, str) and value.startswith(old):
            node[key] = str(Path(new) / value[len(old) :].lstrip('/'))
        else:
            _replace_prefix(value, old, new)
