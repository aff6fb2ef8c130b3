"""Read the annotations of any data set of mmdet, mmseg or mmpretrain for an audit.

The host's own class says where its files are. COCO's JSON and VOC's XML are then read by us, since the hosts drop what
does not fit without a word; every other data set is listed by its host.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmres2net.data.audit.coco import read_coco
from mmres2net.data.audit.report import Finding
from mmres2net.data.audit.split import Parsed, Sample, Split, Thing, misfit
from mmres2net.data.audit.xml import read_xml
from mmres2net.data.check import check_heads
from mmres2net.data.layout import datasets_of
from mmres2net.errors import UserError

# Classes that derive from CocoDataset or XMLDataset but keep their annotations in another way.
OTHER_FORMATS = {'CocoPanopticDataset', 'LVISV05Dataset', 'V3DetDataset', 'WIDERFaceDataset'}
NOT_FILES = ('pipeline', 'test_mode', 'filter_cfg', 'indices', '_scope_')  # keys that do not change what files are read


def read_splits(cfg: Config, parts: Sequence[str]) -> list[Split]:
    """Read the annotations of every data set that ``parts`` of a config name.

    Parts that read the same files come once, as ``val, test``. Damage in annotation files is a finding of the split.

    Raises:
        UserError: A data set that cannot be built, or that has no images to look at.
    """
    found: list[tuple[list[str], dict[str, Any]]] = []
    for part in parts:
        datasets = datasets_of(cfg, part)
        for i, dataset in enumerate(datasets):
            name = part if len(datasets) == 1 else f'{part}[{i}]'
            same = next((names for names, other in found if _files(other) == _files(dataset)), None)
            if same is None:
                found.append(([name], dataset))
            else:
                same.append(name)
    return [_read(cfg, ', '.join(names), dataset) for names, dataset in found]


def _files(dataset: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key not in NOT_FILES}


def _build(cfg: Config, dataset: dict[str, Any]) -> Any:
    """Return the host's data set with nothing read yet: it knows its paths, classes and defaults."""
    node = {**copy.deepcopy(dict(dataset)), 'pipeline': [], 'lazy_init': True}
    try:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmengine') as registry:
            built = registry.build(node)
    except Exception as error:  # the host's constructors raise whatever they like
        raise UserError(f'the data set {dataset.get("type")!r} cannot be built: {error}') from error
    if hasattr(built, 'download'):
        built.download = False  # an audit looks at what is there
    return built


def _read(cfg: Config, part: str, dataset: dict[str, Any]) -> Split:
    built = _build(cfg, dataset)
    classes = (built.metainfo or {}).get('classes') or ()
    source = str(getattr(built, 'ann_file', '') or _folder(built))
    split = Split(part, source, type(built).__name__, tuple(classes) if not isinstance(classes, str) else ())
    bases = {base.__name__ for base in type(built).__mro__}
    try:
        if 'CocoDataset' in bases and not bases & OTHER_FORMATS:
            read_coco(built, split)
        elif 'XMLDataset' in bases and not bases & OTHER_FORMATS:
            read_xml(built, split)
        else:
            _read_listed(built, split)
    except UserError as error:
        split.findings.append(Finding('broken annotation file', source, str(error)))
    if split.classes:
        split.findings += misfit(source, lambda: check_heads(cfg, split.classes))
    return split


def _folder(built: Any) -> str:
    prefix = getattr(built, 'data_prefix', None) or {}
    return next((str(path) for path in prefix.values() if path), str(getattr(built, 'data_root', '')))


def _read_listed(built: Any, split: Split) -> None:
    try:
        infos = built.load_data_list()
    except Exception as error:  # any fault of any host's reader
        still = '' if getattr(built, 'download', None) is None else ' (this check downloads nothing)'
        raise UserError(f'cannot be read: {type(error).__name__}: {error}{still}') from error
    classes = (built.metainfo or {}).get('classes') or split.classes  # folders may name them
    split.classes = tuple(classes)
    for info in infos:
        image, mask = info.get('img_path') or '', info.get('seg_map_path') or ''
        if not isinstance(image, str) or (not image and 'img' not in info):
            raise UserError(f'{split.dataset} gives samples that are not single images, which cannot be checked here')
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        raw = info.get('instances', info.get('gt_label'))
        split.samples.append(Sample(image, size, raw, mask, None if image else info['img']))
    if hasattr(built, 'read_mask'):
        split.unit, split.mask_values = 'pixels', dict(enumerate(split.classes))
        split.read_mask, split.image_fault = built.read_mask, built.image_fault
    elif 'BaseSegDataset' in {base.__name__ for base in type(built).__mro__}:
        split.unit, split.mask_values = 'pixels', mask_values(built)
    elif infos and 'instances' in infos[0]:
        split.things = lambda sample: _instance_things(sample, split.classes)
    else:
        split.unit, split.things = 'images', lambda sample: _label_things(sample, split.classes)


def mask_values(built: Any) -> dict[int, str]:
    """Return what each value in the mask files of an mmseg data set stands for: a class name, or '' for ignored."""
    classes, zero = built.metainfo.get('classes') or (), int(built.reduce_zero_label)
    values = {255: ''} if zero or built.label_map is not None else {}
    values |= {built.ignore_index: '', **({0: ''} if zero else {})}
    if built.label_map is None:
        return values | {i + zero: name for i, name in enumerate(classes)}
    return values | {old + zero: classes[new] if new < len(classes) else '' for old, new in built.label_map.items()}


def _class_of(index: Any, classes: Sequence[str]) -> str | None:
    if not classes:
        return str(index)
    return classes[index] if isinstance(index, int) and 0 <= index < len(classes) else None


def _instance_things(sample: Sample, classes: Sequence[str]) -> Parsed:
    things, findings = [], []
    for i, entry in enumerate(sample.raw or ()):
        where = f'{sample.image} object {i + 1}'
        label = _class_of(entry.get('bbox_label'), classes)
        if label is None:
            findings.append(Finding('label without class', where, str(entry.get('bbox_label'))))
        box = entry.get('bbox')
        box = tuple(float(value) for value in box) if box is not None and len(box) == 4 else None
        things.append(Thing(where, label, box, entry.get('mask'), difficult=bool(entry.get('ignore_flag'))))
    return sample.size, things, findings


def _label_things(sample: Sample, classes: Sequence[str]) -> Parsed:
    indices = [] if sample.raw is None else np.atleast_1d(sample.raw).tolist()
    labels = [(index, _class_of(index, classes)) for index in indices]
    findings = [Finding('label without class', sample.image, str(index)) for index, label in labels if label is None]
    return sample.size, [Thing(sample.image, label) for _, label in labels], findings
