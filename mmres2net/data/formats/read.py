"""Read all data sets of a config, each by the reader of its format.

The class of an OpenMMLab library says where its files are. The formats that its classes read without a word about what
does not fit are read here.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmres2net.data.formats.base import IGNORED, Annotation, Finding, Parsed, Sample, Split, left_out, read_lines
from mmres2net.data.formats.objects import read_coco, read_voc
from mmres2net.data.layout import datasets_of, prefix_of, walk
from mmres2net.errors import UserError, reason_of
from mmres2net.text import join_some

# Classes that derive from CocoDataset or XMLDataset but keep their annotations in another way.
OTHER_FORMATS = {'CocoPanopticDataset', 'LVISV05Dataset', 'V3DetDataset', 'WIDERFaceDataset'}
NOT_FILES = {'pipeline', 'test_mode', 'filter_cfg', 'indices', '_scope_'}  # keys that do not change what files are read


def read_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Read the annotations of every data set that ``parts`` of a config name.

    Parts that read the same files come once, as ``val, test``. Damage in annotation files is a finding of the split; a
    UserError says that a data set cannot be built.
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
    splits = [_read(cfg, names, dataset) for _, names, dataset in found]
    folders = [folder for *_, dataset in found if (folder := image_folder(cfg, dataset))]
    for other in folders[1:]:  # labels are the order of the folders
        first, second = ({path.name for path in place.glob('*') if path.is_dir()} for place in (folders[0], other))
        if first and second and first != second:
            only = [join_some(sorted(names)) or 'none' for names in (first - second, second - first)]
            what = f'labels are the order of the folders; only in {folders[0]}: {only[0]}; only here: {only[1]}'
            splits[0].findings.append(Finding('classes do not fit', str(other), what))
    return splits


def dataset_class(cfg: Config, dataset: dict[str, Any]) -> type:
    """Return the class of a data set dict; a UserError where none is registered under its type."""
    scope = cfg.get('default_scope') or 'mmengine'
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    if found is None:
        raise UserError(f'no data set class {dataset.get("type")!r} is known under {scope}; is its package installed?')
    return found


def classes_of(cfg: Config, dataset: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a data set dict, None: none; a UserError for no list, or a name that comes twice."""
    classes, where = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes'), 'metainfo.classes'
    if not classes:
        kind = dataset_class(cfg, dataset)
        classes, where = (getattr(kind, 'METAINFO', None) or {}).get('classes'), f'{kind.__name__}.METAINFO'
    if isinstance(classes, str):
        if not Path(classes).is_file():
            way = f"write a list of names, for one class with a comma: ('{classes}',)"
            raise UserError(f'{where}={classes!r} is text, and no file of this name is there; {way}')
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
    flags = [str(step.get('color_type')) for step in loaders]
    split.any_format = any(step.get('imdecode_backend', 'cv2') != 'cv2' for step in loaders)
    split.turns_images = not any('unchanged' in flag or 'ignore_orientation' in flag for flag in flags)
    metrics = [node.get('metric') or () for node in evaluators]
    split.needs_masks = any(step.get('with_mask') for step in steps) or any('segm' in metric for metric in metrics)
    try:
        if class_folder := image_folder(cfg, dataset):
            _read_folders(class_folder, built, split)
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


def _read_folders(folder: Path, built: Any, split: Split) -> None:
    names = sorted(entry.name for entry in folder.glob('*') if entry.is_dir())
    if split.classes and len(split.classes) != len(names):
        fault = (
            f'{folder} has {len(names)} folders ({join_some(names)}), one per class, but {split.node["type"]} has '
            f'{len(split.classes)} classes; --data reads classes of your own'
        )
        split.findings.append(Finding('classes do not fit', str(folder), fault))
        split.classes = ()
        return  # mmpretrain does not read them either
    read_listed(built, split)
    if set(split.classes) == set(names) and list(split.classes) != names:
        fault = f'labels follow the order of the folders ({join_some(names)}); sort metainfo.classes'
        split.findings.append(Finding('classes do not fit', str(folder), fault))
    filled = {sample.raw for sample in split.samples}
    empty = [name for i, name in enumerate(names) if i not in filled]
    what = f'no image ends in {", ".join(sorted(built.extensions))}; add some, or remove the folder from all splits'
    split.findings += [Finding('empty class folder', str(folder / name), what) for name in empty]
    split.findings += left_out(folder, built.extensions, ignore_case=True)


# Data sets whose own class lists the samples: semantic masks, and whatever no other reader knows


def read_listed(built: Any, split: Split) -> None:
    """Read the samples that a data set object lists into ``split``; a UserError where they are not single images."""
    semantic, salient = hasattr(built, 'reduce_zero_label'), hasattr(built, 'read_mask')
    if semantic and built.ann_file and not Path(built.ann_file).is_dir():
        read_lines(built.ann_file)  # says what is wrong with the text
    infos = built.load_data_list()
    split.classes = tuple((built.metainfo or {}).get('classes') or split.classes)  # folders may name them
    for info in infos:
        image = info.get('img_path') or ''
        if not isinstance(image, str) or (not image and 'img' not in info):
            raise UserError(f'{split.dataset} gives samples that are not single images, which cannot be checked here')
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        raw, mask = info.get('instances', info.get('gt_label')), info.get('seg_map_path') or ''
        split.samples.append(Sample(image, size, raw, mask, None if image else info['img']))
    if semantic or salient:
        split.unit, split.mask_values = 'pixels', mask_values(built) if semantic else dict(enumerate(split.classes))
        split.read_mask = getattr(built, 'read_mask', None)
        images, masks = (str(built.data_prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
        if images and not built.ann_file:
            together = bool(masks) and Path(masks).is_relative_to(images)
            suffixes = (built.img_suffix, built.seg_map_suffix) if together else (built.img_suffix,)
            split.findings += left_out(Path(images), suffixes, ignore_case=salient)
    elif infos and 'instances' in infos[0]:
        split.unit, split.unlabeled = 'images', True  # only the images are checked
    else:
        split.unit, split.parse = 'images', lambda sample: _parse_labels(sample, split.classes)


def _parse_labels(sample: Sample, classes: Sequence[str]) -> Parsed:
    annotations, findings = [], []
    for index in [] if sample.raw is None else np.atleast_1d(sample.raw).tolist():
        label = str(index) if not classes else classes[index] if index in range(len(classes)) else None
        annotations.append(Annotation(sample.image, label))
        findings += [Finding('label without class', sample.image, str(index))] if label is None else []
    return sample.size, annotations, findings


def mask_values(built: Any) -> dict[int, str]:
    """Return what each value in the mask files of an mmseg data set stands for: a class name, or '' for ignored."""
    classes, zero = built.metainfo.get('classes') or (), int(built.reduce_zero_label)
    values = {IGNORED: ''} if zero or built.label_map is not None else {}
    values |= {built.ignore_index: '', **({0: ''} if zero else {})}
    if built.label_map is None:
        return values | {i + zero: name for i, name in enumerate(classes)}
    return values | {old + zero: classes[new] if new < len(classes) else '' for old, new in built.label_map.items()}
