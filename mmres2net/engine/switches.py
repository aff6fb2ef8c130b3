"""Flags that turn on what MMEngine has: each returns a changed copy of the config and a line for each change."""

import argparse
import copy
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mmres2net.data.layout import walk
from mmres2net.engine.batch import fitting_batch
from mmres2net.engine.config import Change
from mmres2net.engine.precision import with_amp
from mmres2net.environment import computes_bfloat16
from mmres2net.errors import UserError

WRITERS = {'tensorboard': 'TensorboardVisBackend', 'wandb': 'WandbVisBackend'}
TTA_MODELS = {'mmdet': 'DetTTAModel', 'mmseg': 'SegTTAModel', 'mmpretrain': 'AverageClsScoreTTA'}
FLIPS = [{'type': 'RandomFlip', 'prob': 0.0}, {'type': 'RandomFlip', 'prob': 1.0}]  # annotations are those of the first
FLIP_KEYS = ('flip', 'flip_direction')
# Heads whose predictions are not boxes, and which mmdet's TTA model cannot merge.
MASK_HEADS = ('mask_head', 'panoptic_head', 'panoptic_fusion_head', 'segm_head')
EMA_STEPS = 5000  # that the average is over at most, as in YOLOX
EMA_SHARE = 10  # of the steps so far: a tenth


def with_training_switches(cfg: Config, args: argparse.Namespace) -> Change:
    """Turn on what the flags of training ask for; a UserError says what does not fit the config or this machine."""
    notes: list[str] = []

    def apply(change: Callable[..., Change], *options: Any, **more: Any) -> None:
        nonlocal cfg
        cfg, lines = change(cfg, *options, **more)
        notes.extend(lines)

    if args.amp:
        cuda = torch.cuda.is_available()
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else computes_bfloat16()
        apply(with_amp, args.amp, cuda=cuda, bfloat16=bfloat16)
    if args.early_stop:
        apply(with_early_stop, args.early_stop)
    if args.ema:
        apply(with_ema)
    for name in [name for name in WRITERS if getattr(args, name)]:
        apply(with_writer, name)
    if args.batch == 'auto':
        if args.launcher != 'none':
            raise UserError('--batch auto measures in one process: run it without --launcher, then give --batch N')
        apply(with_batch, *fitting_batch(cfg, plain=args.plain))
    return cfg, notes


def with_randomness(cfg: Config, seed: int | None, *, deterministic: bool) -> Change:
    """Set the seed (None: the config's) and allow deterministic code alone: other operations of torch end the run."""
    before: dict[str, Any] = dict(cfg.get('randomness') or {})
    after = dict(before) if seed is None else {**before, 'seed': seed}
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS reads it when it starts
        after |= {'seed': after.get('seed') or 0, 'deterministic': True}
    if after == before:
        return cfg, []
    cfg = copy.deepcopy(cfg)
    cfg.randomness = after
    changed = [key for key in after if after[key] != before.get(key)]
    return cfg, [f'randomness.{key} {before.get(key)} -> {after[key]}' for key in changed]


def with_batch(cfg: Config, batch: int, reason: str = '') -> Change:
    """Set the images of a training batch in each process; a UserError if the sampler has a batch size of its own."""
    cfg = copy.deepcopy(cfg)
    loader = cfg.get('train_dataloader') or {}
    for name in ('sampler', 'batch_sampler'):
        if 'batch_size' in (loader.get(name) or {}):
            raise UserError(f'--batch {batch}: train_dataloader.{name} sets its own batch_size; use --cfg-options')
    line = f'train_dataloader.batch_size {loader.get("batch_size")} -> {batch}'
    loader['batch_size'] = batch
    return cfg, [f'{reason}: {line}' if reason else line]


def with_early_stop(cfg: Config, patience: int) -> Change:
    """Stop after ``patience`` evaluations without a better ``save_best``; a UserError if nothing is evaluated by it."""
    metric = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    if not cfg.get('val_dataloader'):
        raise UserError(f'--early-stop {patience}: the config has no val_dataloader, so training evaluates nothing')
    if not metric:
        raise UserError(
            f'--early-stop {patience}: default_hooks.checkpoint.save_best={metric!r} names no metric; give one, or '
            'auto for the first: --cfg-options default_hooks.checkpoint.save_best=auto'
        )
    line = f'--early-stop: training stops after {patience} evaluations without a better value (save_best={metric})'
    return _with_hook(cfg, type='mmres2net.EarlyStopHook', patience=patience), [line]


def with_ema(cfg: Config) -> Change:
    """Average the weights of the last tenth of the steps so far, at most of about 5000, with those of later steps more.

    Statistics of batch norm are averaged as well. Evaluations and the ``state_dict`` of checkpoints have averaged
    weights; ``ema_state_dict`` has those that training is resumed from.
    """
    if averages_weights(cfg):
        return cfg, ['--ema: the config has an EMAHook, which stays as it is']
    options = {'ema_type': 'MomentumAnnealingEMA', 'momentum': 1 / EMA_STEPS, 'gamma': EMA_SHARE}
    cfg = _with_hook(cfg, type='EMAHook', update_buffers=True, **options)
    return cfg, [f'--ema: an average of the weights is evaluated and saved, momentum {1 / EMA_STEPS:g} in long runs']


def _with_hook(cfg: Config, **hook: Any) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
    return cfg


def averages_weights(cfg: Config) -> bool:
    """Whether a run averages its weights."""
    kinds = [hook.get('type') for hook in cfg.get('custom_hooks') or ()]
    return any(getattr(kind, '__name__', str(kind)).endswith('EMAHook') for kind in kinds)


def with_writer(cfg: Config, name: str) -> Change:
    """Write losses and metrics for ``tensorboard`` or ``wandb`` as well; a UserError if that is not installed."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise UserError(f'--{name}: the package {name} is not installed: pip install {name}')
    cfg = copy.deepcopy(cfg)
    visualizer = dict(cfg.get('visualizer') or {'type': 'Visualizer'})
    backends = list(visualizer.get('vis_backends') or [{'type': 'LocalVisBackend'}])
    backend: dict[str, Any] = {'type': WRITERS[name]}
    if name == 'wandb':
        backend['init_kwargs'] = {'project': 'mmres2net', 'name': Path(cfg.work_dir).name}
    if backend['type'] not in [own.get('type') for own in backends]:
        backends.append(backend)
    cfg.visualizer = {**visualizer, 'vis_backends': backends}
    return cfg, [f'--{name}: visualizer.vis_backends has {WRITERS[name]}']


def with_tta(cfg: Config) -> Change:
    """Return ``cfg`` with a model that averages the predictions for augmented copies of each test image.

    ``tta_model`` and ``tta_pipeline`` of the config are used; where they are absent, the class of the library, and the
    test pipeline once as it is and once flipped horizontally. A UserError says what cannot be merged or flipped.
    """
    cfg = copy.deepcopy(cfg)
    wrapper = cfg.get('tta_model') or _default_model(cfg)
    _check_merging(cfg, str(wrapper['type']))
    plan = 'tta_pipeline of the config' if cfg.get('tta_pipeline') else 'each image as it is and flipped'
    for path, node in walk(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        if isinstance(node.get('pipeline'), list | tuple):
            node['pipeline'] = copy.deepcopy(cfg.get('tta_pipeline')) or _flipped(node['pipeline'], path)
    cfg.model = ConfigDict(**wrapper, module=cfg.model)
    return cfg, [f'--tta: {wrapper["type"]} merges the predictions of {plan}']


def _default_model(cfg: Config) -> dict[str, Any]:
    scope = cfg.get('default_scope')
    if scope not in TTA_MODELS:
        raise UserError(f'--tta: default_scope={scope!r} has no model of test-time augmentation; set tta_model')
    if scope != 'mmdet':
        return {'type': TTA_MODELS[scope]}
    tested = cfg.model.get('test_cfg') or {}
    tested = tested.get('rcnn') or tested
    nms = tested.get('nms') or {'type': 'nms', 'iou_threshold': 0.5}
    return {'type': TTA_MODELS[scope], 'tta_cfg': {'nms': nms, 'max_per_img': tested.get('max_per_img', 100)}}


def _check_merging(cfg: Config, merges: str) -> None:
    """Check that the class merges all that the model predicts and the metrics read."""
    merges, kind = merges.rpartition('.')[2], str(cfg.model.get('type'))
    for path, node in walk(cfg.model, 'model') if merges == TTA_MODELS['mmdet'] else ():
        if head := next((name for name in MASK_HEADS if node.get(name)), None):
            raise UserError(f'--tta: mmdet merges boxes alone, and {path}.{head} predicts masks; leave it out')
    if merges == TTA_MODELS['mmpretrain'] and not kind.endswith('Classifier'):
        raise UserError(f'--tta: mmpretrain merges the scores of classifiers alone, and this is a {kind}')
    for path, node in walk(cfg.test_evaluator, 'test_evaluator') if merges == TTA_MODELS['mmseg'] else ():
        if str(node.get('type')).endswith('SaliencyMetric'):
            raise UserError(f'--tta: mmseg merges label maps alone, and {path} evaluates probabilities; leave it out')


def _flipped(pipeline: Any, path: str) -> list[Any]:
    *steps, pack = pipeline
    name = str(pack.get('type')).rpartition('.')[2]
    if not name.startswith('Pack'):
        raise UserError(f'--tta: {path}.pipeline ends with {name}, not with packed inputs; set tta_pipeline')
    if 'meta_keys' in pack:
        pack = {**pack, 'meta_keys': tuple(dict.fromkeys([*pack['meta_keys'], *FLIP_KEYS]))}
    return [*steps, {'type': 'TestTimeAug', 'transforms': [copy.deepcopy(FLIPS), [pack]]}]
