"""The one way from a config to a model or a data set: in the config's own scope, from a copy, with one kind of error.

The OpenMMLab libraries write into the dicts that they build from, and raise whatever comes up where one does not fit.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry
from torch import nn

from mmres2net.errors import UserError, reason_of


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Within the block types are looked up in the default scope of ``cfg``; behind it in the scope of before."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        yield


def class_of(cfg: Config, registry: Registry, kind: Any) -> Any:
    """Return the class that a ``type`` of ``cfg`` names, in its default scope; None where there is none."""
    with scope_of(cfg), registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind) if isinstance(kind, str) else kind


@contextmanager
def building(what: str) -> Iterator[None]:
    """Within the block every exception becomes a UserError that names ``what`` is built: a config may be wrong."""
    try:
        yield
        if module := sys.modules.get('mmdet.models.dense_heads.ssd_head'):
            module.SSDHead.loss_cls = None  # mmdet 3.3 reads it in predictions and never sets it
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'{what} cannot be built: {reason_of(error)}') from error


def build_model(cfg: Config, *, init_weights: bool = False) -> Any:
    """Return the model of ``cfg`` in training mode; a UserError if there is none, or it cannot be built.

    As in MMEngine's runner, a ``data_preprocessor`` beside the ``model`` belongs to it. ``init_weights`` initializes as
    the config says, which reads the checkpoints that its ``init_cfg`` name.
    """
    if not cfg.get('model'):
        raise UserError(f'{cfg.filename or "this config"} has no model')
    node = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):
        node.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with scope_of(cfg), building('the model of this config'):
        model = MODELS.build(node)
        if init_weights:
            model.init_weights()
    return model


def unwrapped(model: Any) -> nn.Module:
    """Return ``model`` without the wrapper of several processes."""
    return model.module if is_model_wrapper(model) else model


def wrappers_of(runner: Any) -> list[Any]:
    """Return the optimizer wrappers of a runner, of which a training may have several."""
    wrapper = getattr(runner, 'optim_wrapper', None)
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def build_dataset(cfg: Config, node: dict[str, Any]) -> Any:
    """Return the data set that the dict ``node`` of ``cfg`` describes; a UserError if it cannot be built."""
    with scope_of(cfg), building(f'the data set {node.get("type")!r}'):
        return DATASETS.build(copy.deepcopy(node))
