"""The networks whose maps are drawn: a config's model with the weights of a checkpoint, its classifier included."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmres2net.cam.names import last_stage, layer_named
from mmres2net.cam.tasks import Task, task_of
from mmres2net.data.layout import walk
from mmres2net.engine.config import load_config, single_process_norms, without_published_weights
from mmres2net.engine.weights import check_normalization
from mmres2net.errors import UserError
from mmres2net.export.source import build, class_names, fill, meta_of
from mmres2net.models.arch import ALIASES, ARCHS
from mmres2net.models.dla import Res2NetDLA
from mmres2net.models.res2net import Res2Net
from mmres2net.weights import recognise, to_ours, unwrap
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.loading import check_stage_pool, fill_counters
from mmres2net.weights.reading import read_checkpoint

RANDOM = 'random weights'


@dataclass(frozen=True)
class Network:
    """A model whose predictions are explained.

    Args:
        cfg: Its config.
        model: The model, in evaluation mode.
        task: What can be explained of it.
        layer: The layer whose map is drawn.
        title: The name of its config.
        weights: The name of its checkpoint.
        classes: The names of its classes; none where nobody knows them.
    """

    cfg: Config
    model: Any
    task: Task
    layer: str
    title: str
    weights: str
    classes: tuple[str, ...]


def read_network(
    config: str,
    checkpoint: str | None,
    *,
    options: dict[str, Any] | None = None,
    layer: str | None = None,
    device: str = 'cpu',
    everywhere: bool = False,
    allow_pickle: bool = False,
) -> Network:
    """Return the model of a config with the weights of a checkpoint.

    Args:
        config: A config file, the name of a shipped one, or ``HOST::NAME``.
        checkpoint: A file, an address, or a name as :func:`mmres2net.weights.fetching.fetch_checkpoint` takes them.
            For classifiers also published weights of the network with its classifier. None: random weights.
        options: Settings that override the config.
        layer: The layer whose map is drawn; None: the last stage of the backbone.
        device: Where the model runs.
        everywhere: As in :func:`mmres2net.cam.tasks.task_of`.
        allow_pickle: Whether the checkpoint may run code.

    Raises:
        UserError: Config, checkpoint or layer do not exist or do not fit each other, or nothing can be explained.
    """
    cfg = load_config(config, options)
    if not cfg.get('model'):
        raise UserError(f'{config} has no model: there is nothing to explain')
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as MMEngine's runner does
    cfg = _prepared(cfg)
    content: dict[str, Any] = {}
    if checkpoint is not None:
        content = _read(cfg, checkpoint, allow_pickle)
    torch.manual_seed(0)  # random weights shall be the same in every run
    model = build(cfg, random=checkpoint is None)
    if checkpoint is not None:
        fill(model, with_classifier(unwrap(content), model), checkpoint)
    known = class_names(meta_of(content, cfg))
    task = task_of(model, known, everywhere=everywhere)
    if task.count == 2 and len(known) == 1:  # a segmentor of one class and the rest
        known = ('background', *known)
    name = last_stage(model) if layer is None else layer_named(model, layer)
    weights = RANDOM if checkpoint is None else Path(checkpoint).name
    title = Path(config.rpartition('::')[2]).stem
    return Network(cfg, _on(model, device), task, name, title, weights, known if len(known) == task.count else ())


def _prepared(cfg: Config) -> Config:
    """Return a copy for one process whose weights come from a checkpoint, and that keeps what its blocks compute."""
    cfg = single_process_norms(without_published_weights(cfg))[0]
    for _, node in walk(cfg.model, 'model'):
        if node.get('with_cp'):  # a block that is run again in the backward pass would run the layer again
            node['with_cp'] = False
    return cfg


def _read(cfg: Config, checkpoint: str, allow_pickle: bool) -> dict[str, Any]:
    arch = (cfg.model.get('backbone') or {}).get('arch')
    if isinstance(arch, str) and (checkpoint in (*ARCHS, *ALIASES) or checkpoint.startswith('timm://')):
        trial = copy.deepcopy(cfg)
        trial.model.backbone.init_cfg = {'type': 'mmres2net.Pretrained', 'checkpoint': checkpoint}
        check_normalization(trial)
    try:
        return read_checkpoint(fetch_checkpoint(checkpoint), allow_pickle=allow_pickle)
    except UserError as error:
        raise UserError(f'the checkpoint {checkpoint}: {error}') from error


def with_classifier(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return the weights of a whole classifier by the names of ``model``, a classifier of mmpretrain.

    Published networks name their classifier ``fc`` and have no prefix: the official release, timm, torchvision. Weights
    of other forms are returned as they are.

    Args:
        state: Weights by name.
        model: The model that they are for.

    Raises:
        UserError: They are of another network than the model's backbone.
    """
    head = getattr(model, 'head', None)
    if 'fc.weight' not in state or not hasattr(head, 'fc'):
        return dict(state)
    network = {name: tensor for name, tensor in state.items() if not name.startswith('fc.')}
    if isinstance(model.backbone, Res2Net | Res2NetDLA):
        recognised = recognise(state)
        check_stage_pool(recognised, model.backbone)
        network = to_ours(state, recognised)[0]
    whole = {f'backbone.{name}': tensor for name, tensor in network.items()}
    whole['head.fc.weight'] = state['fc.weight'].flatten(1)  # of a DLA it is a 1x1 convolution
    if 'fc.bias' in state:
        whole['head.fc.bias'] = state['fc.bias']
    fill_counters(whole)
    return whole


def _on(model: Any, device: str) -> Any:
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'--device {device}: {words}; cpu always works') from error
