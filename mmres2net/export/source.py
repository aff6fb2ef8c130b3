"""What is exported: the model of a config with the weights of a checkpoint, and what a runner has to know of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.data.layout import dataset_of_test
from mmres2net.engine.config import load_config, single_process_norms, without_published_weights
from mmres2net.engine.weights import check_checkpoint
from mmres2net.errors import UserError
from mmres2net.export.pixels import steps_of_test
from mmres2net.export.quiet import quiet
from mmres2net.weights import unwrap
from mmres2net.weights.reading import read_checkpoint

LISTED = 5


@dataclass(frozen=True)
class Source:
    """A model in evaluation mode with its config.

    Args:
        cfg: The config.
        model: The model as its host builds it.
        words: The names of config and weights, for the file.
        classes: Names of the classes; none where nobody knows them.
        palette: Their colours, or none.
    """

    cfg: Config
    model: Any
    words: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


def read_source(
    config: str, checkpoint: str | None, *, options: dict[str, Any] | None = None, allow_pickle: bool = False
) -> Source:
    """Return the model of a config with the weights of a checkpoint.

    Args:
        config: A config file, the name of a shipped one, or ``HOST::NAME``.
        checkpoint: A file or an address; None: the random weights that the config begins with.
        options: Settings that override the config.
        allow_pickle: Whether the checkpoint may run code.

    Raises:
        UserError: Config or checkpoint cannot be read, or do not fit each other.
    """
    cfg = load_config(config, options)
    if not cfg.get('model'):
        raise UserError(f'{config} has no model: there is nothing to export')
    content: dict[str, Any] = {}
    if checkpoint is not None:
        file = check_checkpoint(checkpoint, 'the checkpoint to export', allow_pickle=allow_pickle)
        content = read_checkpoint(file, allow_pickle=allow_pickle)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as MMEngine's runner does
    cfg = single_process_norms(without_published_weights(cfg))[0]
    model = build(cfg, random=checkpoint is None)
    if checkpoint is not None:
        fill(model, unwrap(content), checkpoint)
    meta = meta_of(content, cfg)
    names = class_names(meta)
    palette = meta.get('palette') or meta.get('PALETTE') or ()
    words = f'{Path(config).name}, {Path(checkpoint).name if checkpoint else "random weights"}'
    colours = [tuple(int(value) for value in colour) for colour in palette] if isinstance(palette, list | tuple) else []
    return Source(cfg, model, words, names, tuple(colours))  # type: ignore[arg-type]


def build(cfg: Config, *, random: bool) -> Any:
    """Return the model of ``cfg`` in evaluation mode, its weights drawn where they stay ``random``.

    Raises:
        UserError: Something in the config cannot be built.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        model = MODELS.build(copy.deepcopy(cfg.model))  # the hosts write into what they build from
    except (TypeError, ValueError, KeyError, AssertionError, ImportError) as error:
        raise UserError(f'the model of this config cannot be built: {error}') from error
    if random:
        with quiet():  # it names every parameter
            model.init_weights()
        if hasattr(model, 'backbone'):
            settle(model)
    return model.eval()


def settle(model: Any) -> None:
    """Give the norms of a random backbone the statistics of noise; without any, values grow from block to block."""
    norms = [module for module in model.backbone.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = None  # the plain mean of what is seen
    with torch.no_grad():
        model.backbone(torch.randn(2, 3, 128, 128))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def fill(model: Any, state: dict[str, torch.Tensor], name: str) -> None:
    """Load ``state`` into ``model``, all of it.

    Raises:
        UserError: A parameter would stay random, or has another shape.
    """
    own = model.state_dict()
    faults = [f'{key}: not in the checkpoint' for key in own if key not in state]
    faults += [
        f'{key}: {tuple(state[key].shape)} in the checkpoint, {tuple(value.shape)} in the model'
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        more = [f'and {len(faults) - LISTED} more'] if len(faults) > LISTED else []
        listed = '\n  '.join([*faults[:LISTED], *more])
        raise UserError(
            f'the checkpoint {name} does not fit the config:\n  {listed}\ntake the config that it was trained with'
        )
    model.load_state_dict(state, strict=False)  # an optimiser's averages may lie beside the weights


def meta_of(content: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """Return what is known of the classes: by the checkpoint, the config's data, or the data set's class."""
    meta = content.get('meta')
    trained = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if trained:
        return dict(trained)
    node = dataset_of_test(cfg)
    if node.get('metainfo'):
        return dict(node['metainfo'])
    # A host's data sets are found under its scope alone.
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmengine') as registry:
        kind = registry.get(node['type']) if isinstance(node.get('type'), str) else node.get('type')
    return dict(getattr(kind, 'METAINFO', {}))


def class_names(meta: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in what :func:`meta_of` gives; none where nobody knows them."""
    classes = meta.get('classes') or meta.get('CLASSES') or ()
    return (classes,) if isinstance(classes, str) else tuple(str(name) for name in classes)


def resize_of(cfg: Config) -> tuple[tuple[int, int] | None, bool]:
    """Return the width and height to which a config resizes test images, None where it does not, and if by one factor.

    Raises:
        UserError: It resizes them in a way that the runner does not know.
    """
    steps = [step for step in steps_of_test(cfg) if str(step.get('type')).rpartition('.')[2].startswith('Resize')]
    if not steps:
        return None, True
    scale = steps[0].get('scale')
    if len(steps) > 1 or str(steps[0]['type']) != 'Resize' or isinstance(scale, int | float) or scale is None:
        raise UserError(f'the test pipeline resizes by {steps}; one Resize with scale=(width, height) can be exported')
    return (int(scale[0]), int(scale[1])), bool(steps[0].get('keep_ratio', False))
