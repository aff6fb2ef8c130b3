"""Point any config at a folder: ``--data DIR``.

A config names its data as a root folder and paths below it, in the data set's standard layout. Pointing it at a folder
means: find in that folder the place that has those paths, and write it wherever the config names the old root.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePath
from typing import Any

from mmengine.config import Config

from mmres2net.errors import UserError
from mmres2net.text import join_some

PARTS = ('train', 'val', 'test')
# Keys of data sets and evaluators that hold a path of the data; other keys are texts of other meaning, or outputs.
PATH_KEYS = {
    'ann_file', 'seg_prefix', 'img_prefix', 'proposal_file', 'label_file', 'hierarchy_file', 'meta_file', 'gt_folder',
    'image_level_ann_file', 'ref_ann_file', 'img', 'img_path', 'seg', 'seg_map_path', 'sub_data_root',
}  # fmt: skip


def walk(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every dict in a part of a config with its path, parents first."""
    if isinstance(node, dict):
        yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in list(items):
        yield from walk(value, f'{path}.{key}')


def datasets_of(cfg: Config, part: str) -> list[dict[str, Any]]:
    """Return the data set dicts of a part of the config, out of whatever wraps them; none where the part is absent."""
    found: dict[str, dict[str, Any]] = {}
    for path, node in walk(cfg.get(f'{part}_dataloader') or {}, ''):
        if ('ann_file' in node or 'data_root' in node) and not path.startswith(tuple(f'{outer}.' for outer in found)):
            found[path] = node
    return list(found.values())


def dataset_of_test(cfg: Config) -> dict[str, Any]:
    """Return the data set dict of the test images, else of validation, out of what wraps it; empty where none is."""
    node = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    return next((inner for _, inner in walk(node, '') if 'pipeline' in inner), node)


def needed_paths(dataset: dict[str, Any]) -> list[str]:
    """Return the files and folders that a data set dict names, relative to its root where they are."""
    prefix = dataset.get('data_prefix')
    folders = prefix.values() if isinstance(prefix, dict) else [prefix_of(dataset)]
    named = [dataset.get('ann_file'), *folders]
    return [path for path in named if isinstance(path, str) and path]


def prefix_of(dataset: dict[str, Any]) -> str:
    """Return the image folder that a data set dict of mmpretrain names, relative to its root; empty: none."""
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path')
    # ImageNet alone means a folder by its split.
    if not prefix and str(dataset.get('type')).rpartition('.')[2] in ('ImageNet', 'ImageNet21k'):
        prefix = dataset.get('split')
    return prefix or ''


def point_at(cfg: Config, folder: str | Path, parts: Sequence[str] = PARTS) -> Config:
    """Return a copy of ``cfg`` that reads its data from ``folder``, never from outside of it.

    ``folder`` is the root itself or holds it, as the parent of ``VOCdevkit`` does. ``parts`` must be there; others
    follow where they share a root. A UserError says that a folder is missing, does not fit, or that the config has no
    root.
    """
    base = Path(folder).expanduser()
    if not str(folder) or not base.is_dir():
        raise UserError(f'--data {str(folder) or repr("")}: no such folder')
    cfg = copy.deepcopy(cfg)
    needed: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for part in PARTS:
        for dataset in datasets_of(cfg, part):
            by_root = needed if part in parts else others
            by_root.setdefault(dataset.get('data_root') or '', []).extend(needed_paths(dataset))
    if not any((*needed, *others)):
        raise UserError(f'--data {folder}: this config names no data_root, so no path can be replaced')
    found = {old: _find_root(base, old, paths) for old, paths in needed.items() if old}
    # Data sets in the same layout: a folder that holds one of them would pass for all.
    for (old, new), (other, same) in combinations(found.items(), 2):
        if new == same and Path(old) != Path(other) and set(needed[old]) == set(needed[other]):
            raise UserError(f'--data {folder} would stand for both {old!r} and {other!r}; give a folder of both')
    for old in {old for old in others if old} - set(found):
        # A folder that stands for one data set is no other one, though it may have the same layout.
        taken = [place for other, place in found.items() if set(others[old]) <= set(needed.get(other, ()))]
        free = [place for place in _candidates(base, old) if place not in taken and not _missing(place, others[old])]
        found |= {old: free[0]} if free else {}
    moves = {PurePath(old): new for old, new in found.items()}
    for part in PARTS:
        for dataset in datasets_of(cfg, part):
            below_root = bool(dataset.get('data_root'))
            for node in (dataset, dataset.get('data_prefix')):
                _move(node, moves, below_root=below_root)
        for _, node in walk(cfg.get(f'{part}_evaluator') or {}, ''):
            _move(node, moves)
    return cfg


def _candidates(base: Path, old: str) -> list[Path]:
    steps = Path(old).parts
    return [base, *(base.joinpath(*steps[-n:]) for n in range(1, len(steps) + 1) if not Path(old).is_absolute())]


def _missing(place: Path, paths: Sequence[str]) -> list[str]:
    return sorted({path for path in paths if not (place / path).exists()})


def _find_root(base: Path, old: str, paths: Sequence[str]) -> Path:
    nearest = min(_candidates(base, old), key=lambda place: len(_missing(place, paths)))
    if not (missing := _missing(nearest, paths)):
        return nearest
    there = sorted(entry.name + ('/' if entry.is_dir() else '') for entry in base.iterdir())
    parent = base.resolve().parent
    hint = f'; {parent} has it: --data {parent}' if not _missing(parent, paths) else ''
    raise UserError(
        f'--data {base}: the layout does not fit this config.\n'
        f'  missing below {nearest}: {join_some(missing, limit=12)}\n'
        f'  found in {base}: {join_some(there, limit=12) or "no file"}\n'
        f'  give the folder to use instead of {old!r}, or its parent{hint}'
    )


def _move(node: Any, moves: Mapping[PurePath, Path], *, below_root: bool = False) -> None:
    """Replace the old roots of the paths in a dict, in place; below a root of its own, relative paths stay."""
    for key, text in list(node.items()) if isinstance(node, dict) else ():
        if key not in (*PATH_KEYS, 'data_root') or not isinstance(text, str) or not text:
            continue
        roots = [old for old in moves if PurePath(text).is_relative_to(old)]
        if roots and (key == 'data_root' or not below_root or PurePath(text).is_absolute()):
            old = max(roots, key=lambda root: len(root.parts))
            node[key] = str(moves[old] / PurePath(text).relative_to(old))
