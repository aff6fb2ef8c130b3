"""Read all data sets of a config, each by the reader of its format.

The class of an OpenMMLab library says where its files are. The formats that its classes read without a word about what
does not fit are read here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmres2net.data.formats.base import Finding, Split
from mmres2net.data.formats.coco import read_coco
from mmres2net.data.formats.folders import image_folder, read_folders
from mmres2net.data.formats.listed import read_listed
from mmres2net.data.formats.masks import read_masks
from mmres2net.data.formats.voc import read_voc
from mmres2net.data.layout import datasets_of, walk
from mmres2net.errors import UserError, reason_of
from mmres2net.text import join_some

# Classes that derive from CocoDataset or XMLDataset but keep their annotations in another way.
OTHER_FORMATS = {'CocoPanopticDataset', 'LVISV05Dataset', 'V3DetDataset', 'WIDERFaceDataset'}
NOT_FILES = ('pipeline', 'test_mode', 'filter_cfg', 'indices', '_scope_')  # keys that do not change what files are read


def read_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Read the annotations of every data set that ``parts`` of a config name.

    Parts that read the same files come once, as ``val, test``. Damage in annotation files is a finding of the split.

    Raises:
        UserError: A data set that cannot be built.
    """
    found: list[tuple[list[tuple[str, str]], dict[str, Any]]] = []
    for part in parts:
        datasets = datasets_of(cfg, part)
        for i, dataset in enumerate(datasets):
            name = part if len(datasets) == 1 else f'{part}[{i}]'
            same = next((names for names, other in found if _files(other) == _files(dataset)), None)
            if same is None:
                found.append(([(name, part)], dataset))
            else:
                same.append((name, part))
    return [_read(cfg, names, dataset) for names, dataset in found]


def _files(dataset: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key not in NOT_FILES}


def dataset_class(cfg: Config, dataset: dict[str, Any]) -> type:
    """Return the class of a data set dict.

    Raises:
        UserError: None is registered under its type.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    if found is None:
        raise UserError(
            f'no data set class {dataset.get("type")!r} is registered under {scope}; is its package installed?'
        )
    return found


def format_of(kind: type) -> str:
    """Return the format that a data set class reads: ``coco``, ``voc``, ``masks``, ``folders`` or ``listed``."""
    bases = {base.__name__ for base in kind.__mro__}
    formats = {
        'CocoDataset': 'coco', 'XMLDataset': 'voc', 'BaseSegDataset': 'masks', 'PairedSegDataset': 'masks',
        'CustomDataset': 'folders',
    }  # fmt: skip
    return 'listed' if bases & OTHER_FORMATS else next((formats[b] for b in formats if b in bases), 'listed')


def classes_of(cfg: Config, dataset: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a data set dict: its own, those in a file it names, or its class's; None: none.

    Raises:
        UserError: They are neither a list of names nor a file of them, or a name comes twice.
    """
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes') or dataset.get('classes')
    where = 'metainfo.classes'
    if not classes:
        kind = dataset_class(cfg, dataset)
        classes, where = (getattr(kind, 'METAINFO', None) or {}).get('classes'), f'{kind.__name__}.METAINFO'
    if isinstance(classes, str):
        if not Path(classes).is_file():
            raise UserError(
                f'{where}={classes!r} is text, and no file of this name is there; write a list of names, for one class '
                f"with a comma: ('{classes}',)"
            )
        classes = Path(classes).read_text(encoding='utf-8').splitlines()  # a name a line, as MMEngine reads it
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f'{where}={classes!r}: write a list of names')
    if len(set(classes)) < len(classes) and where == 'metainfo.classes':
        raise UserError(f'{where} has a name more than once: {join_some(classes)}')
    return tuple(classes)


def _build(cfg: Config, dataset: dict[str, Any]) -> Any:
    """Return the library's data set object without reading files: it knows its paths, classes and defaults."""
    node = {**copy.deepcopy(dict(dataset)), 'pipeline': [], 'lazy_init': True}
    try:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmengine') as registry:
            built = registry.build(node)
    except Exception as error:  # the constructors raise whatever they like
        raise UserError(f'the data set {dataset.get("type")!r} cannot be built: {reason_of(error)}') from error
    if hasattr(built, 'download'):
        built.download = False  # a check reads what is there
    return built


def _read(cfg: Config, names: Sequence[tuple[str, str]], dataset: dict[str, Any]) -> Split:
    classes = classes_of(cfg, dataset)
    built = _build(cfg, dataset)
    source = str(getattr(built, 'ann_file', '') or _folder(built))
    split = Split(', '.join(name for name, _ in names), source, type(built).__name__, dataset, tuple(classes or ()))
    evaluators = [node for _, part in names for _, node in walk(cfg.get(f'{part}_evaluator') or {}, '')]
    split.unlabeled = not split.training and any(node.get('format_only') for node in evaluators)
    steps = [step for _, step in walk(dataset.get('pipeline') or [], '')]
    loaders = [step for step in steps if 'LoadImage' in str(step.get('type'))]
    split.any_format = any(step.get('imdecode_backend', 'cv2') != 'cv2' for step in loaders)
    flags = [str(step.get('color_type')) for step in loaders]
    split.turns_images = not any('unchanged' in flag or 'ignore_orientation' in flag for flag in flags)
    split.needs_masks = any(step.get('with_mask') for step in steps)
    split.needs_masks |= any('segm' in (node.get('metric') or ()) for node in evaluators)
    readers = {'coco': read_coco, 'voc': read_voc, 'masks': read_masks}
    kind = format_of(type(built))
    try:
        folder = image_folder(dataset) if kind == 'folders' else None
        if folder is not None:
            read_folders(folder, split, classes)
        else:
            readers.get(kind, read_listed)(built, split)
    except UserError as error:
        split.findings.append(Finding('broken annotation file', source, str(error)))
    except Exception as error:  # any fault of any library's reader
        still = '' if getattr(built, 'download', None) is None else ' (this check downloads nothing)'
        split.findings.append(Finding('broken annotation file', source, f'{type(error).__name__}: {error}{still}'))
    return split


def _folder(built: Any) -> str:
    prefix = getattr(built, 'data_prefix', None) or {}
    return next((str(path) for path in prefix.values() if path), str(getattr(built, 'data_root', '')))
