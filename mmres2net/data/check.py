"""Checks of the data that run before training: what would fail late, or silently spoil the result, fails now.

The hosts drop unknown classes without a word, number classes in the annotation file's order whatever order the config
has, draw batches from an empty set forever and read half of a truncated image as grey. Each is an error here.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from mmres2net.data.folders import check_same_folders, classes_in, image_folder
from mmres2net.data.layout import datasets_of, needed_paths, walk
from mmres2net.errors import UserError

SHOWN = 5  # how many of a kind an error lists


def check_before_training(cfg: Config, parts: Sequence[str]) -> None:
    """Check the data that a run will read, in the first process alone, before processes meet and a model is built.

    Args:
        cfg: The config of the run, with ``--data`` applied.
        parts: The parts that the run reads: of ``train``, ``val``, ``test``.

    Raises:
        UserError: The data have errors; the message lists them. ``--skip-data-check`` skips this call.
    """
    check_paths(cfg, parts)
    check_classes(cfg, parts)


def check_paths(cfg: Config, parts: Sequence[str]) -> None:
    """Check that the files and folders which ``parts`` of the config name are there.

    Raises:
        UserError: Some are missing.
    """
    missing = []
    for part in parts:
        for dataset in datasets_of(cfg, part):
            root = Path(dataset.get('data_root') or '')
            missing += [root / path for path in needed_paths(dataset) if not (root / path).exists()]
    if missing:
        listed = '\n'.join(f'  {path}' for path in dict.fromkeys(missing))
        raise UserError(
            f'the data set is not where the config says (seen from {Path.cwd()}):\n{listed}\n'
            'put it there, or name its folder with --data DIR'
        )


def check_classes(cfg: Config, parts: Sequence[str]) -> None:
    """Check that the config's classes are those of the annotations or folders and of the model's heads.

    Raises:
        UserError: A class without annotations' category or images, another order, an empty file, splits of different
            classes, a head of another size, or a metric of more guesses than classes.
    """
    folders = []
    for part in parts:
        for dataset in datasets_of(cfg, part):
            classes, kinds = classes_of(cfg, dataset), _kinds(cfg, dataset)
            folder = image_folder(dataset) if 'CustomDataset' in kinds else None
            if folder is not None:
                classes = classes_in(folder, dataset, classes)
                folders.append(folder)
            if classes is None:
                continue
            check_heads(cfg, classes)
            _check_guesses(cfg, part, classes)
            root = Path(dataset.get('data_root') or '')
            if 'CocoDataset' in kinds:
                _check_coco(root / dataset['ann_file'], classes)
            elif 'XMLDataset' in kinds:
                _check_xml(root, dataset, classes)
    check_same_folders(folders)


def classes_of(cfg: Config, dataset: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a data set dict: its own, or those of its class; None where it has none."""
    metainfo = dataset.get('metainfo') or {}
    classes = metainfo.get('classes') or getattr(_dataset_class(cfg, dataset), 'METAINFO', {}).get('classes')
    return tuple(classes) if isinstance(classes, list | tuple) else None


def _dataset_class(cfg: Config, dataset: dict[str, Any]) -> type | None:
    scope = cfg.get('default_scope') or 'mmengine'
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    if found is None:
        raise UserError(
            f'no data set class {dataset.get("type")!r} is registered under {scope}; is its package installed?'
        )
    return found


def _kinds(cfg: Config, dataset: dict[str, Any]) -> set[str]:
    return {base.__name__ for base in getattr(_dataset_class(cfg, dataset), '__mro__', ())}


def check_heads(cfg: Config, classes: Sequence[str]) -> None:
    """Check that every head which names ``num_classes`` has as many as the data set.

    Raises:
        UserError: One has another number.
    """
    for path, node in walk(cfg.get('model') or {}, 'model'):
        # Proposal heads tell objects from background, whatever the classes.
        is_head = 'num_classes' in node and 'head' in path and 'rpn' not in path
        if is_head and node['num_classes'] != len(classes):
            path = f'{path}.num_classes'
            raise UserError(
                f'{path}={node["num_classes"]}, but the data set has {len(classes)} classes ({_few(classes)}); '
                f'set it with --cfg-options {path}={len(classes)}'
            )


def _check_guesses(cfg: Config, part: str, classes: Sequence[str]) -> None:
    # mmpretrain's Accuracy says so only when the first epoch has been trained.
    for path, node in walk(cfg.get(f'{part}_evaluator') or {}, f'{part}_evaluator'):
        topk = node.get('topk')
        most = max(topk) if isinstance(topk, list | tuple) else topk
        if isinstance(most, int) and most > len(classes):
            raise UserError(
                f'{path}.topk={topk}, but the data set has {len(classes)} classes ({_few(classes)}); '
                f'set it with --cfg-options {path}.topk=1'
            )


def _check_coco(ann_file: Path, classes: Sequence[str]) -> None:
    try:
        content = json.loads(ann_file.read_bytes())
        names = [category['name'] for category in content['categories']]
        images, annotations = content['images'], content.get('annotations', [])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{ann_file} is not a COCO annotation file: {type(error).__name__} {error}') from error
    check_categories(ann_file, names, classes)
    if not images or not annotations:
        raise UserError(f'{ann_file} is an empty split: {len(images)} images, {len(annotations)} annotations')


def _check_xml(root: Path, dataset: dict[str, Any], classes: Sequence[str]) -> None:
    ann_file = root / dataset['ann_file']
    ids = ann_file.read_text().split()
    if not ids:
        raise UserError(f'{ann_file} is an empty split: it lists no image')
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = root / prefix / dataset.get('ann_subdir', 'Annotations')
    names: Counter[str] = Counter()
    for image_id in ids:
        path = folder / f'{image_id}.xml'
        try:
            names.update(element.text or '' for element in ElementTree.parse(path).iterfind('object/name'))
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(f'{path}, listed by {ann_file}, cannot be read: {error}') from error
    check_object_names(ann_file, list(names), classes)


def check_categories(source: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """Check that a COCO file's category ``names`` hold the config's ``classes``, in their order.

    Raises:
        UserError: A class without category, or another order.
    """
    _check_names(source, names, classes)
    order = [name for name in names if name in set(classes)]
    if order != list(classes):
        raise UserError(
            f'{source} lists its categories in another order than the config, and labels would follow the file: '
            f'file {_few(order)}; config {_few(classes)}; order metainfo.classes as the file does'
        )


def check_object_names(source: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """Check that ``names``, those of all objects of a split in VOC's XML, are of the config's vocabulary.

    Raises:
        UserError: They are of another one.
    """
    # A class without an object is a small split, an unknown name a wanted subset; both at once, or no object at all,
    # is another vocabulary.
    unknown = set(names) - set(classes)
    if not set(names) & set(classes) or (unknown and set(classes) - set(names)):
        _check_names(source, names, classes)


def _check_names(source: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    absent = [name for name in classes if name not in names]
    if absent:
        raise UserError(
            f'{source} has no category for {len(absent)} of the {len(classes)} classes in the config: {_few(absent)}; '
            f'it has {_few(names) or "none"}. Set metainfo.classes of the data sets and num_classes of the heads to '
            'the annotations, or use the config made for this data set'
        )


def check_images(datasets: Sequence[Any], *, workers: int = 8) -> None:
    """Check that each of the built ``datasets`` has samples and that all their images and masks can be read.

    Headers are read and ends are looked at; an image that looks cut short is decoded to be sure.

    Raises:
        UserError: An empty set, or files that are missing, damaged or of another size than annotated.
    """
    files: dict[str, tuple[int, int] | None] = {}
    for dataset in datasets:
        if len(dataset) == 0:
            raise UserError(
                f'the split of {getattr(dataset, "ann_file", type(dataset).__name__)} is empty: no image is left after '
                'filtering by annotations and size (filter_cfg); check that its classes and boxes fit the config'
            )
        files.update(_files_of(dataset))
    print(f'checking {len(files):,} image files', file=sys.stderr)
    own = [check for dataset in datasets for check in _own_checks(dataset)]
    with ThreadPoolExecutor(workers) as pool:
        faults = [fault for fault in pool.map(_fault, files, files.values()) if fault]
        faults += [fault for fault in pool.map(lambda check: check(), own) if fault]
    if faults:
        more = f'\n  and {len(faults) - SHOWN} more' if len(faults) > SHOWN else ''
        listed = '\n'.join(f'  {fault}' for fault in faults[:SHOWN])
        raise UserError(
            f'{len(faults)} of {len(files)} image files cannot be used:\n{listed}{more}\n'
            'fetch them again, or take them out of the annotations'
        )


def _files_of(dataset: Any) -> dict[str, tuple[int, int] | None]:
    """Return the files of a built data set with the (width, height) its annotations state, where they do."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner[0] is not None:
        return {path: size for part in inner for path, size in _files_of(part).items()}
    if not hasattr(dataset, 'get_data_info'):
        return {}
    files: dict[str, tuple[int, int] | None] = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        if isinstance(info.get('img_path'), str):
            files[info['img_path']] = size
        if isinstance(info.get('seg_map_path'), str):
            files[info['seg_map_path']] = size
    return files


def _own_checks(dataset: Any) -> Iterator[Callable[[], str]]:
    """Yield what a built data set of ours checks of each of its samples (``fault_of``): masks beside images."""
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from _own_checks(part)
    if hasattr(dataset, 'fault_of'):
        yield from (partial(dataset.fault_of, dataset.get_data_info(i)) for i in range(len(dataset)))


def _fault(path: str, size: tuple[int, int] | None) -> str:
    """Return what is wrong with an image file; nothing if it is sound."""
    try:
        with Image.open(path) as image:
            if size is not None and image.size != size and image.getexif().get(0x0112, 1) < 5:
                return f'{path}: {image.size[0]}x{image.size[1]} pixels, but annotated as {size[0]}x{size[1]}'
            if not _ends_well(path, image.format):
                image.load()
    except FileNotFoundError:
        return f'{path}: not there'
    except Exception as error:  # damaged files raise many kinds of error, all of which mean the same here
        return f'{path}: not readable as an image ({error})'
    return ''


def _ends_well(path: str, file_format: str | None) -> bool:
    """Whether the file ends as a whole file of its format does, which a truncated one does not."""
    marks = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
    if file_format not in marks:
        return False
    with open(path, 'rb') as file:
        file.seek(max(Path(path).stat().st_size - 16, 0))
        return file.read().rstrip(b'\0').endswith(marks[file_format])


def _few(names: Sequence[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(str(name) for name in names[:SHOWN]) + more
