"""Read all data sets of a config, each by the reader of its format.

The class of an OpenMMLab library says where its files are. The formats that its classes read without a word about what
does not fit are read here.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmres2net.data.formats.base import Finding, Split, labeled, left_out, read_lines
from mmres2net.data.formats.coco import read_coco
from mmres2net.data.formats.listed import read_listed
from mmres2net.data.formats.per_image import read_voc
from mmres2net.data.layout import datasets_of, prefix_of, walk
from mmres2net.errors import UserError, reason_of
from mmres2net.text import join_some

# Classes that derive from CocoDataset or XMLDataset but keep their annotations in another way.
OTHER_FORMATS = {'CocoPanopticDataset', 'LVISV05Dataset', 'V3DetDataset', 'WIDERFaceDataset'}
NOT_FILES = {'pipeline', 'test_mode', 'filter_cfg', 'indices', '_scope_'}  # keys that do not change what files are read
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # mmpretrain's default


def read_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Read the annotations of every data set that ``parts`` of a config name.

    Parts that read the same files come once, as ``val, test``. Damage in annotation files is a finding of the split.

    Raises:
        UserError: A data set that cannot be built.
    """
    found: list[tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any]]] = []
    for part in parts:
        datasets = datasets_of(cfg, part)
        for i, dataset in enumerate(datasets):
            name = part if len(datasets) == 1 else f'{part}[{i}]'
            files = {key: value for key, value in dataset.items() if key not in NOT_FILES}
            if same := next((names for other, names, _ in found if other == files), None):
                same.append((name, part))
            else:
                found.append((files, [(name, part)], dataset))
    return [_read(cfg, names, dataset) for _, names, dataset in found]


def dataset_class(cfg: Config, dataset: dict[str, Any]) -> type:
    """Return the class of a data set dict; a UserError where none is registered under its type."""
    scope = cfg.get('default_scope') or 'mmengine'
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    if found is None:
        raise UserError(
            f'no data set class {dataset.get("type")!r} is registered under {scope}; is its package installed?'
        )
    return found


def classes_of(cfg: Config, dataset: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a data set dict: its own, those in a file it names, or its class's; None: none.

    Raises:
        UserError: They are neither a list of names nor a file of them, or a name comes twice.
    """
    classes, where = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes'), 'metainfo.classes'
    if not classes:
        kind = dataset_class(cfg, dataset)
        classes, where = (getattr(kind, 'METAINFO', None) or {}).get('classes'), f'{kind.__name__}.METAINFO'
    if isinstance(classes, str):
        if not Path(classes).is_file():
            raise UserError(
                f'{where}={classes!r} is text, and no file of this name is there; write a list of names, for one class '
                f"with a comma: ('{classes}',)"
            )
        classes = read_lines(classes)  # a name a line, as MMEngine reads it
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f'{where}={classes!r}: write a list of names')
    if len(set(classes)) < len(classes) and where == 'metainfo.classes':
        raise UserError(f'{where} has a name more than once: {join_some(classes)}')
    return tuple(classes)


def _read(cfg: Config, names: Sequence[tuple[str, str]], dataset: dict[str, Any]) -> Split:
    classes = classes_of(cfg, dataset)
    built = _build(cfg, dataset)
    prefix = getattr(built, 'data_prefix', None) or {}
    folder = next((str(path) for path in prefix.values() if path), str(getattr(built, 'data_root', '')))
    source = str(getattr(built, 'ann_file', '') or folder)
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
    try:
        if class_folder := image_folder(cfg, dataset):
            _read_folders(class_folder, split, classes)
        else:
            bases = {base.__name__ for base in type(built).__mro__}
            readers = {'CocoDataset': read_coco, 'XMLDataset': read_voc}
            fits = [read for name, read in readers.items() if name in bases and not bases & OTHER_FORMATS]
            next(iter(fits), read_listed)(built, split)
    except UserError as error:
        split.findings.append(Finding('broken annotation file', source, str(error)))
    except Exception as error:  # any fault of any library's reader
        still = '' if getattr(built, 'download', None) is None else ' (this check downloads nothing)'
        split.findings.append(Finding('broken annotation file', source, f'{type(error).__name__}: {error}{still}'))
    return split


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


# Images in a folder per class, as mmpretrain reads them: it numbers the classes by the names of the folders.


def image_folder(cfg: Config, dataset: dict[str, Any]) -> Path | None:
    """Return the folder whose subfolders are the classes of a data set dict; None where a list names the images."""
    if not any(base.__name__ == 'CustomDataset' for base in dataset_class(cfg, dataset).__mro__):
        return None
    root, split = Path(dataset.get('data_root') or ''), dataset.get('split')
    listed = dataset.get('ann_file') or (split and (root / 'meta' / f'{split}.txt').is_file())
    return None if listed or not dataset.get('with_label', True) else root / prefix_of(dataset)


def _read_folders(folder: Path, split: Split, classes: Sequence[str] | None) -> None:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UserError(f'{folder} cannot be read: {error.strerror or error}') from error
    if not names:
        raise UserError(
            f'{folder} has no folders: its images must be sorted into one folder per class, as {folder}/CLASS/*.jpg'
        )
    fault = ''
    if classes is not None and len(classes) != len(names):
        fault = (
            f'{folder} has {len(names)} folders ({join_some(names)}), one per class, but {split.node["type"]} has '
            f'{len(classes)} classes; for classes of your own add to --cfg-options, for each of train, val and test: '
            f'train_dataloader.dataset.type=CustomDataset, and model.head.num_classes={len(names)}'
        )
    elif classes is not None and set(classes) == set(names) and list(classes) != names:
        fault = (
            f'{folder}: labels follow the order of the folders ({join_some(names)}), not that of metainfo.classes '
            f'({join_some(classes)}); sort metainfo.classes'
        )
    split.unit, split.classes = 'images', tuple(names if classes is None or fault else classes)
    split.findings += [Finding('classes do not fit', str(folder), fault)] if fault else []
    suffixes = tuple(sorted({suffix.lower() for suffix in split.node.get('extensions', SUFFIXES)}))
    empty = []
    for label, name in zip(split.classes, names, strict=True):
        files = [os.path.join(p, n) for p, _, found in os.walk(folder / name, followlinks=True) for n in sorted(found)]
        images = [file for file in files if file.lower().endswith(suffixes)]
        split.samples += [labeled(file, label) for file in images]
        empty += [] if images else [name]
    if empty:
        what = (
            f'{len(empty)} of the {len(names)} class folders have no images: {join_some(empty)}; images end in '
            f'{", ".join(suffixes)}. Fill them, or remove the class from all splits'
        )
        split.findings.append(Finding('empty class folder', str(folder), what))
    split.findings += left_out(folder, suffixes, ignore_case=True)


def check_same_folders(folders: Sequence[Path]) -> list[Finding]:
    """Return an error for each of ``folders`` whose subfolders are not those of the first: numbers are by name."""
    findings = []
    for other in folders[1:]:
        first, second = ({path.name for path in folder.iterdir() if path.is_dir()} for folder in (folders[0], other))
        if first and second and first != second:
            what = (
                f'{folders[0]} and {other} have different classes, and labels are the order of the folders: '
                f'only the first has {join_some(sorted(first - second)) or "none"}; '
                f'only the second has {join_some(sorted(second - first)) or "none"}; name the folders alike'
            )
            findings.append(Finding('classes do not fit', str(other), what))
    return findings
