"""The networks whose maps are drawn: a config's model with the weights of a checkpoint, its classifier included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmres2net.cam.names import last_stage, layer_named
from mmres2net.cam.tasks import Task, task_of
from mmres2net.engine.source import ModelSource, place_on, read_source


@dataclass(frozen=True, kw_only=True)
class Network(ModelSource):
    """A model whose predictions are explained."""

    task: Task  # what can be explained
    layer: str  # whose map is drawn


def read_network(
    config: str,
    checkpoint: str | None,
    *,
    options: dict[str, Any] | None = None,
    data: str | None = None,
    layer: str | None = None,
    device: str = 'cpu',
    all_pixels: bool = False,
    allow_pickle: bool = False,
) -> Network:
    """Return the model of a config with the weights of a checkpoint.

    Args:
        config: A config file, the name of a shipped one, or ``LIBRARY::NAME``.
        checkpoint: As in :func:`mmres2net.engine.source.read_source`.
        options: Settings that override the config.
        data: As in :func:`mmres2net.engine.source.read_source`.
        layer: The layer whose map is drawn; None: the last stage of the backbone.
        device: Where the model runs.
        all_pixels: As in :func:`mmres2net.cam.tasks.task_of`.
        allow_pickle: Whether the checkpoint may run code.

    Raises:
        UserError: Config, checkpoint or layer do not exist or do not fit each other, or nothing can be explained.
    """
    source = read_source(config, checkpoint, options=options, data=data, allow_pickle=allow_pickle)
    task, names = task_of(source.model, source.classes, all_pixels=all_pixels), source.classes
    if task.count == 2 and len(names) == 1:  # a segmentor of one class and the rest
        names = ('background', *names)
    name = last_stage(source.model) if layer is None else layer_named(source.model, layer)
    model = place_on(source.model.requires_grad_(False), device)
    names = names if len(names) == task.count else ()
    return Network(**{**vars(source), 'model': model, 'classes': names}, task=task, layer=name)
