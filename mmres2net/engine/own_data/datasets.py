"""Data sets, samplers and evaluators of a config, replaced by those of own data in their standard form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mmengine.config import Config

from mmres2net.data.formats.read import dataset_class
from mmres2net.data.layout import PARTS, datasets_of, walk
from mmres2net.data.own.dataset import OwnData
from mmres2net.engine.own_data.heads import useful_topk
from mmres2net.errors import UserError
from mmres2net.swap.sources import type_name

Node = dict[str, Any]
SUGGESTED = {
    'detection': 'faster_rcnn_r2n50',
    'instances': 'mask_rcnn_r2n50',
    'segmentation': 'deeplabv3plus_r2n50',
    'classification': 'imagenet/res2net50_26w_4s',
}
TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}
MIXERS = {'MultiImageMixDataset', 'ClassBalancedDataset'}  # other wrappers repeat, join or divide data sets
SAMPLERS = {'DefaultSampler', 'InfiniteSampler', 'RepeatAugSampler', 'ClassAwareSampler'}  # for any one data set
LOADERS = {'LoadImageFromFile', 'LoadAnnotations', 'LoadSaliencyMask', 'LoadEmptyAnnotations'}
# What cannot be trained on boxes, masks or labels alone, by a part of the name of a data set, metric or model.
OTHER_TASKS = ('Panoptic', 'MultiLabel', 'Video', 'ReID', 'Depth', 'Semi', 'Teacher')
SMALL = 32  # pixels of the images of data sets that come in one file, such as CIFAR


def task_of(cfg: Config, title: str) -> str:
    """Return what a config is trained on: ``detection``, ``instances``, ``segmentation`` or ``classification``.

    Raises:
        UserError: Something else.
    """
    nodes = [node for part in PARTS for node in datasets_of(cfg, part)]
    steps = [step for node in nodes for _, step in walk(node.get('pipeline') or [], '') if 'type' in step]
    kinds = [base.__name__ for node in nodes for base in dataset_class(cfg, node).__mro__]
    kinds += [type_name(node.get('type')) for node in [*_evaluators(cfg), cfg.get('model') or {}]]
    loaders = {kind for step in steps if (kind := type_name(step['type'])).startswith('Load')}
    others = [kind for kind in kinds if any(part in kind for part in OTHER_TASKS)] + sorted(loaders - LOADERS)
    others += ['LoadAnnotations(with_seg=True)'] if any(step.get('with_seg') for step in steps) else []
    library = cfg.get('default_scope') or (dataset_class(cfg, nodes[0]).__module__.split('.')[0] if nodes else '')
    if others or not nodes or library not in TASKS:
        why = others[0] if others else f'default_scope={library!r}'
        known = ', '.join(SUGGESTED.values())
        raise UserError(f'{title} cannot be trained on data of your own ({why}); choose a config such as {known}')
    if library == 'mmdet' and (any(step.get('with_mask') for step in steps) or 'segm' in _metric_of(cfg)):
        return 'instances'
    return TASKS[library]


def check_task(cfg: Config, data: OwnData, title: str) -> None:
    """Check that a config is made for the task of ``data``.

    Raises:
        UserError: It is not; the message names a config that is.
    """
    task, classes = task_of(cfg, title), len(data.classes)
    fits = data.task == task or (data.task, task) == ('instances', 'detection')
    if not fits or (is_saliency(cfg) and classes != 2):
        wanted = task if not fits else 'two classes, background and object'
        has = data.task if not fits else f'{classes} classes'
        raise UserError(f'{data.path}: {has}, and {title} is for {wanted}; choose e.g. {SUGGESTED[data.task]}')


def _evaluators(cfg: Config) -> Iterator[Node]:
    for part in PARTS:
        yield from (node for _, node in walk(cfg.get(f'{part}_evaluator') or {}, '') if 'type' in node)


def is_saliency(cfg: Config) -> bool:
    """Return whether a config segments salient objects: one probability a pixel."""
    return any(type_name(node['type']) == 'SaliencyMetric' for node in _evaluators(cfg))


def _metric_of(cfg: Config) -> list[str]:
    """Return what a detection config evaluates: ``bbox``, ``segm`` or both."""
    for node in _evaluators(cfg):
        metric = node.get('metric') or ()
        if kinds := [kind for kind in ('bbox', 'segm') if kind in ((metric,) if isinstance(metric, str) else metric)]:
            return kinds
    return ['bbox']


def fit_datasets(cfg: Config, data: OwnData, *, keep_repeats: bool) -> tuple[list[str], int]:
    """Replace the data sets of ``cfg``, in place; return lines that say so, and how often training repeated its own."""
    lines: dict[str, list[str]] = {}
    kept, repeated = MIXERS | ({'RepeatDataset'} if keep_repeats else set()), 1
    for part in PARTS:
        if not (loader := cfg.get(f'{part}_dataloader')):
            continue
        name = part if part in data.splits else 'val'
        loader['dataset'], times = _replaced(loader['dataset'], partial(_dataset, cfg, data, name), kept)
        repeated = times if part == 'train' else repeated
        lines.setdefault(f'{data.splits[name].images:,} images of {data.path} ({name})', []).append(part)
        if type_name((loader.get('sampler') or {}).get('type')) not in SAMPLERS:
            loader['sampler'] = {'type': 'DefaultSampler', 'shuffle': part == 'train'}
        if type_name((loader.get('batch_sampler') or {}).get('type')) != 'AspectRatioBatchSampler':
            loader.pop('batch_sampler', None)
    for _, step in walk(cfg.get('tta_pipeline') or [], ''):
        step.pop('reduce_zero_label', None)
    texts = [f'{", ".join(f"{part}_dataloader" for part in parts)}: {text}' for text, parts in lines.items()]
    return texts + ([f'RepeatDataset is left out: an epoch is 1/{repeated} as long'] if repeated > 1 else []), repeated


def _replaced(node: Node, make: Callable[[Node], Node], kept: set[str]) -> tuple[Node, int]:
    """Return a data set dict with what it wraps replaced, and how often it was repeated."""
    inner = node.get('dataset') or next(iter(node.get('datasets') or ()), None)
    if not isinstance(inner, dict):
        return make(node), 1
    new, times = _replaced(inner, make, kept)
    kind = type_name(node.get('type'))
    if kind in kept:
        return {**node, 'dataset': new}, times
    return new, times * node.get('times', 1) if kind == 'RepeatDataset' else times


def _dataset(cfg: Config, data: OwnData, name: str, old: Node) -> Node:
    """Return the data set dict of a split, with the pipeline of ``old``."""
    new: Node = {'data_root': str(data.root), 'ann_file': str(data.splits[name].annotation)}
    new['metainfo'] = {'classes': data.classes, 'palette': data.palette}
    new['pipeline'] = copy.deepcopy(list(old.get('pipeline') or ()))
    for _, step in walk(new['pipeline'], ''):
        step.pop('reduce_zero_label', None)  # own masks have the numbers of the classes
        if type_name(step.get('type')) == 'LoadSaliencyMask':  # reads masks of 0 and 255
            step['type'] = 'LoadAnnotations'
    if data.task == 'segmentation':
        return {'type': 'mmres2net.PairedSegDataset', **new}
    if data.task == 'classification':
        _load_files(cfg, new['pipeline'])
        return {'type': 'mmpretrain.CustomDataset', **new, 'data_prefix': ''}
    rules = {key: value for key, value in (old.get('filter_cfg') or {}).items() if key != 'bbox_min_size'}
    mode = {'filter_cfg': rules} if name == 'train' else {'test_mode': True}
    return {'type': 'mmdet.CocoDataset', **new, 'data_prefix': {'img': ''}, **mode}


def _load_files(cfg: Config, steps: list[Node]) -> None:
    """Let a pipeline for images that come in one file, such as CIFAR's, load image files."""
    names = [type_name(step['type']) for step in steps]
    if 'LoadImageFromFile' not in names:
        resize = [] if any('Resize' in name for name in names) else [{'type': 'Resize', 'scale': (SMALL, SMALL)}]
        steps[:0] = [{'type': 'LoadImageFromFile'}, *resize]
        for node in (cfg.model.get('data_preprocessor'), cfg.get('data_preprocessor')):
            if node:
                node['to_rgb'] = True  # files are loaded as BGR


def fit_evaluators(cfg: Config, data: OwnData) -> list[str]:
    """Replace the evaluators of ``cfg`` and what chooses the best checkpoint, in place; return lines that say so."""
    evaluator, best = _evaluator(cfg, data)
    for part in ('val', 'test'):
        if cfg.get(f'{part}_dataloader'):
            split = data.splits[part if part in data.splits else 'val']
            file = {'ann_file': str(split.annotation)} if 'COCOMetric' in evaluator['type'] else {}
            cfg[f'{part}_evaluator'] = {**evaluator, **file}
    hooks = dict(cfg.get('default_hooks') or {})
    hook = hooks.get('checkpoint', {'type': 'CheckpointHook'})
    if hook is not None:
        # Published configs keep the checkpoint of every epoch, of which small data sets have hundreds.
        chosen = {'save_best': best, 'rule': 'greater'} if hook.get('save_best', best) else {}
        hooks['checkpoint'] = {'max_keep_ckpts': 3, **hook, **chosen}
        cfg.default_hooks = hooks
        best = f', best checkpoint by {best}' if chosen else ''
    return [f'val_evaluator, test_evaluator: {evaluator["type"]}{best if hook else ""}']


def _evaluator(cfg: Config, data: OwnData) -> tuple[Node, str]:
    """Return the evaluator of a config for ``data``, and the name of its main metric."""
    if data.task == 'classification':
        topk = next((node['topk'] for node in _evaluators(cfg) if node.get('topk')), (1, 5))
        topk = useful_topk(topk, len(data.classes))
        return {'type': 'mmpretrain.Accuracy', 'topk': topk}, f'accuracy/top{topk[0]}'
    if data.task == 'segmentation':
        salient = is_saliency(cfg)
        return {'type': f'mmres2net.{"Saliency" if salient else "IoU"}Metric'}, 'maxF' if salient else 'mIoU'
    kinds = _metric_of(cfg)
    return {'type': 'mmres2net.COCOMetric', 'metric': kinds, 'classwise': True}, f'coco/{kinds[0]}_mAP'
