"""Data sets, heads and evaluators of a config, replaced by those of own data in their standard form."""

import copy
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.check.before import class_heads
from mmres2net.data.formats.read import dataset_class
from mmres2net.data.layout import PARTS, datasets_of, walk
from mmres2net.data.own.dataset import OwnData
from mmres2net.engine.config import Change
from mmres2net.engine.own_data.schedule import fit_schedule
from mmres2net.errors import UserError
from mmres2net.swap.sources import type_name
from mmres2net.text import join_some

Node = dict[str, Any]
SUGGESTED = {
    'detection': 'faster_rcnn_r2n50', 'instances': 'mask_rcnn_r2n50', 'segmentation': 'deeplabv3plus_r2n50',
    'classification': 'imagenet/res2net50_26w_4s',
}  # fmt: skip
TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}
MIXERS = {'MultiImageMixDataset', 'ClassBalancedDataset'}  # other wrappers repeat, join or divide data sets
SAMPLERS = {'DefaultSampler', 'InfiniteSampler', 'RepeatAugSampler', 'ClassAwareSampler'}  # for any one data set
LOADERS = {'LoadImageFromFile', 'LoadAnnotations', 'LoadSaliencyMask', 'LoadEmptyAnnotations'}
# What cannot be trained on boxes, masks or labels alone, by a part of the name of a data set, metric or model.
OTHER_TASKS = ('Panoptic', 'MultiLabel', 'Video', 'ReID', 'Depth', 'Semi', 'Teacher')
FIXED = ('language_model', 'text_encoder', 'teacher_bbox_head')  # words of a text, or a trained teacher
SMALL = 32  # pixels of the images of data sets that come in one file, such as CIFAR


def use_own_data(
    cfg: Config,
    data: OwnData,
    *,
    recipe: Config | None = None,
    processes: int = 1,
    given: Collection[str] = (),
    keep_schedule: bool = False,
) -> Change:
    """Return a copy of ``cfg`` that trains and evaluates on ``data``, and a line for each change; pipelines stay.

    Args:
        recipe: The config without the settings that the user gave; None: the same.
        processes: Processes of the run.
        given: Settings that the user gave; those of the schedule stay as they are.
        keep_schedule: Keep the whole schedule of the recipe.

    A UserError says that the config is made for another task, or that its model cannot have other classes.
    """
    title, recipe, cfg = Path(cfg.filename or 'this config').stem, recipe or cfg, copy.deepcopy(cfg)
    check_task(cfg, data, title)
    # A network for salient objects has one output and no number of classes.
    heads = [] if is_saliency(cfg) and not class_heads(cfg.model) else _fit_heads(cfg, data.classes, title)
    evaluator = _fit_evaluators(cfg, data)
    lines, repeated = _fit_datasets(cfg, data, keep_repeats=keep_schedule)
    lines = [f'--data: {line}' for line in [*lines, *heads, evaluator]]
    if not keep_schedule:
        split, (node, *_) = data.splits['train'], datasets_of(cfg, 'train')
        images = split.annotated if (node.get('filter_cfg') or {}).get('filter_empty_gt') else split.images
        fitted = fit_schedule(cfg, recipe, images, processes=processes, repeated=repeated, given=given)
        lines += [f'schedule: {line}' for line in fitted]
    cfg.pop('embedded_data', None)
    return cfg, lines


def task_of(cfg: Config, title: str) -> str:
    """Return what a config is trained on (a key of :data:`SUGGESTED`); a UserError if it is something else."""
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
    """Check that a config is made for the task of ``data``; a UserError names one that is."""
    task, classes = task_of(cfg, title), len(data.classes)
    fits = data.task == task or (data.task, task) == ('instances', 'detection')
    if not fits or (is_saliency(cfg) and classes != 2):
        wanted = task if not fits else 'two classes, background and object'
        has = data.task if not fits else f'{classes} classes'
        raise UserError(f'{data.path}: {has}, and {title} is for {wanted}; choose e.g. {SUGGESTED[data.task]}')


def _evaluators(cfg: Config) -> list[Node]:
    return [node for part in PARTS for _, node in walk(cfg.get(f'{part}_evaluator') or {}, '') if 'type' in node]


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


def _fit_datasets(cfg: Config, data: OwnData, *, keep_repeats: bool) -> tuple[list[str], int]:
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
        names = [type_name(step['type']) for step in new['pipeline']]
        if 'LoadImageFromFile' not in names:  # a data set whose images come in one file, such as CIFAR
            resize = [] if any('Resize' in kind for kind in names) else [{'type': 'Resize', 'scale': (SMALL, SMALL)}]
            new['pipeline'][:0] = [{'type': 'LoadImageFromFile'}, *resize]
            for node in filter(None, (cfg.model.get('data_preprocessor'), cfg.get('data_preprocessor'))):
                node['to_rgb'] = True  # files are loaded as BGR
        return {'type': 'mmpretrain.CustomDataset', **new, 'data_prefix': ''}
    rules = {key: value for key, value in (old.get('filter_cfg') or {}).items() if key != 'bbox_min_size'}
    mode = {'filter_cfg': rules} if name == 'train' else {'test_mode': True}
    return {'type': 'mmdet.CocoDataset', **new, 'data_prefix': {'img': ''}, **mode}


def _fit_evaluators(cfg: Config, data: OwnData) -> str:
    """Replace the evaluators of ``cfg`` and what chooses the best checkpoint, in place; return a line that says so."""
    evaluator: Node
    kinds, salient = _metric_of(cfg), is_saliency(cfg)
    if data.task == 'classification':
        topk = next((node['topk'] for node in _evaluators(cfg) if node.get('topk')), (1, 5))
        evaluator = {'type': 'mmpretrain.Accuracy', 'topk': _useful_topk(topk, len(data.classes))}
        best = f'accuracy/top{evaluator["topk"][0]}'
    elif data.task == 'segmentation':
        evaluator = {'type': f'mmres2net.{"Saliency" if salient else "IoU"}Metric'}
        best = 'maxF' if salient else 'mIoU'
    else:
        evaluator = {'type': 'mmres2net.COCOMetric', 'metric': kinds, 'classwise': True}
        best = f'coco/{kinds[0]}_mAP'
    for part in ('val', 'test'):
        if cfg.get(f'{part}_dataloader'):
            split = data.splits[part if part in data.splits else 'val']
            file = {'ann_file': str(split.annotation)} if 'metric' in evaluator else {}
            cfg[f'{part}_evaluator'] = {**evaluator, **file}
    text, hooks = f'val_evaluator, test_evaluator: {evaluator["type"]}', dict(cfg.get('default_hooks') or {})
    hook = hooks.get('checkpoint', {'type': 'CheckpointHook'})
    if hook is None:
        return text
    # Published configs keep the checkpoint of every epoch, of which small data sets have hundreds.
    chosen = {'save_best': best, 'rule': 'greater'} if hook.get('save_best', best) else {}
    cfg.default_hooks = {**hooks, 'checkpoint': {'max_keep_ckpts': 3, **hook, **chosen}}
    return text + (f', best checkpoint by {best}' if chosen else '')


def _fit_heads(cfg: Config, classes: Sequence[str], title: str) -> list[str]:
    """Set everything in the model of ``cfg`` that counts classes, in place; return lines that say so."""
    nodes = dict(walk(cfg.model, 'model'))
    fixed = [f'{path}.{key}' for path, node in nodes.items() for key in FIXED if node.get(key)]
    heads = {path: (node, 'num_classes') for path, node in class_heads(cfg.model).items()}
    heads |= {path: (node, 'num_things_classes') for path, node in nodes.items() if 'num_things_classes' in node}
    if fixed or not heads:
        why = f'its classes are those of {fixed[0]}' if fixed else 'no head of the model has num_classes'
        raise UserError(f'{title} cannot be trained on classes of your own: {why}; choose another config')
    count, changed = len(classes), {}
    for path, (head, key) in heads.items():
        changed[f'{path}.{key}'] = old = head[key]
        _fit_head(head, old, count)
        head[key] = count
        if 'topk' in head:
            head['topk'] = _useful_topk(head['topk'], count)
    # What mixes labels or writes them as vectors: preprocessors, and augmentation of whole batches.
    places = {'model.': cfg.model.get('data_preprocessor'), '': cfg.get('data_preprocessor')}
    parts = {f'{place}data_preprocessor': part for place, part in places.items()}
    for place, part in {**parts, 'model.train_cfg': cfg.model.get('train_cfg')}.items():
        for path, node in walk(part or {}, place):
            if (old := node.get('num_classes')) in set(changed.values()):
                changed[f'{path}.num_classes'], node['num_classes'] = old, count
    olds = [old for old in dict.fromkeys(changed.values()) if old != count]
    return [f'{join_some([p for p, o in changed.items() if o == old], limit=3)} {old} -> {count}' for old in olds]


def _fit_head(head: dict[str, Any], old: int, count: int) -> None:
    """Set what a head and its losses have for each class, and for the background behind the classes."""
    for _, node in walk(head, ''):
        if node.get('num_classes') == old:
            node['num_classes'] = count
        weights = node.get('class_weight')
        if isinstance(weights, list | tuple):
            # Weights that differ are made for the classes of another data set.
            same = len(set(weights[:old])) == 1 and len(weights) in (old, old + 1)
            node['class_weight'] = [weights[0]] * count + list(weights[old:]) if same else None
    if head.get('out_channels') == old:
        head['out_channels'] = count


def _useful_topk(topk: Any, count: int) -> tuple[int, ...]:
    """Return those of ``topk`` that are under the number of classes; accuracy is 100 % from there on."""
    values = tuple(topk) if isinstance(topk, list | tuple) else (topk,)
    return tuple(k for k in values if k < count) or (1,)
