"""Own data in any config: data sets, heads, evaluators and schedule follow what was recognized in a folder."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path

from mmengine.config import Config

from mmres2net.data.check.config import class_heads
from mmres2net.data.layout import datasets_of
from mmres2net.data.own.dataset import OwnData
from mmres2net.engine.config import Change
from mmres2net.engine.own_data.datasets import check_task, fit_datasets, fit_evaluators, is_saliency
from mmres2net.engine.own_data.heads import fit_heads
from mmres2net.engine.own_data.schedule import fit_schedule

__all__ = ['use_own_data']
# Variables of the shipped configs that describe the data set which they were written for.
STALE = (
    'data_root', 'dataset_type', 'dataset_name', 'metainfo', 'classes', 'palette', 'num_classes', 'max_epochs',
    'max_iters', 'train_pipeline', 'test_pipeline', 'embedded_data', 'dataset', 'msrab', 'suffixes', 'tested',
)  # fmt: skip


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
        cfg: A config of mmdet, mmseg or mmpretrain; it stays unchanged.
        data: The data in standard form.
        recipe: The config without the settings that the user gave; None: the same.
        processes: Processes of the run.
        given: Settings that the user gave; those of the schedule stay as they are.
        keep_schedule: Keep the whole schedule of the recipe.

    Raises:
        UserError: The config is made for another task, or its model cannot have other classes.
    """
    title, recipe, cfg = Path(cfg.filename or 'this config').stem, recipe or cfg, copy.deepcopy(cfg)
    check_task(cfg, data, title)
    # A network for salient objects has one output and no number of classes.
    heads = [] if is_saliency(cfg) and not class_heads(cfg.model) else fit_heads(cfg, data.classes, title)
    evaluators = fit_evaluators(cfg, data)
    lines, repeated = fit_datasets(cfg, data, keep_repeats=keep_schedule)
    lines = [f'--data: {line}' for line in lines + heads + evaluators]
    if not keep_schedule:
        split, (node, *_) = data.splits['train'], datasets_of(cfg, 'train')
        images = split.annotated if (node.get('filter_cfg') or {}).get('filter_empty_gt') else split.images
        fitted = fit_schedule(cfg, recipe, images, processes=processes, repeated=repeated, given=given)
        lines += [f'schedule: {line}' for line in fitted]
    for key in STALE:
        cfg.pop(key, None)
    return cfg, lines
