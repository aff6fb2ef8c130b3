"""``--tta``: predictions averaged over augmented copies of each image, by the config's own plan or over flips."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict

from mmres2net.data.layout import walk
from mmres2net.engine.config import Change
from mmres2net.errors import UserError

MODELS = {'mmdet': 'DetTTAModel', 'mmseg': 'SegTTAModel', 'mmpretrain': 'AverageClsScoreTTA'}
FLIPS = [{'type': 'RandomFlip', 'prob': 0.0}, {'type': 'RandomFlip', 'prob': 1.0}]  # annotations are those of the first
FLIP_KEYS = ('flip', 'flip_direction')
# Heads whose predictions are not boxes, and which mmdet's TTA model cannot merge.
MASK_HEADS = ('mask_head', 'panoptic_head', 'panoptic_fusion_head', 'segm_head')


def with_tta(cfg: Config) -> Change:
    """Return ``cfg`` with a model that averages the predictions for augmented copies of each test image.

    ``tta_model`` and ``tta_pipeline`` of the config are used; where they are absent, the class of the library, and the
    test pipeline once as it is and once flipped horizontally.

    Raises:
        UserError: The library has no class that merges the predictions of this model, or the pipeline has no end that
            could be flipped.
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
    if scope not in MODELS:
        raise UserError(f'--tta: default_scope={scope!r} has no model of test-time augmentation; set tta_model')
    if scope != 'mmdet':
        return {'type': MODELS[scope]}
    tested = cfg.model.get('test_cfg') or {}
    tested = tested.get('rcnn') or tested
    nms = tested.get('nms') or {'type': 'nms', 'iou_threshold': 0.5}
    return {'type': MODELS[scope], 'tta_cfg': {'nms': nms, 'max_per_img': tested.get('max_per_img', 100)}}


def _check_merging(cfg: Config, merges: str) -> None:
    """Check that the class merges all that the model predicts and the metrics read."""
    merges, kind = merges.rpartition('.')[2], str(cfg.model.get('type'))
    for path, node in walk(cfg.model, 'model') if merges == MODELS['mmdet'] else ():
        if head := next((name for name in MASK_HEADS if node.get(name)), None):
            raise UserError(f'--tta: mmdet merges boxes alone, and {path}.{head} predicts masks; leave it out')
    if merges == MODELS['mmpretrain'] and not kind.endswith('Classifier'):
        raise UserError(f'--tta: mmpretrain merges the scores of classifiers alone, and this is a {kind}')
    for path, node in walk(cfg.test_evaluator, 'test_evaluator') if merges == MODELS['mmseg'] else ():
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
