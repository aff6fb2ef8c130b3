"""The networks whose maps are drawn: a config's model with the weights of a checkpoint, its classifier included."""

from __future__ import annotations

from dataclasses import dataclass

from mmres2net.cam.names import last_stage, layer_named
from mmres2net.cam.tasks import Task, task_of
from mmres2net.engine.source import ModelSource, place_on


@dataclass(frozen=True, kw_only=True)
class Network(ModelSource):
    """A model whose predictions are explained."""

    task: Task  # what can be explained
    layer: str  # whose map is drawn


def network_of(
    source: ModelSource, *, layer: str | None = None, device: str = 'cpu', all_pixels: bool = False
) -> Network:
    """Return a model as a network whose predictions are explained; its parameters get no gradients.

    Args:
        source: The model.
        layer: The layer whose map is drawn; None: the last stage of the backbone.
        device: Where the model runs.
        all_pixels: As in :func:`mmres2net.cam.tasks.task_of`.

    Raises:
        UserError: There is no such layer or device, or nothing can be explained.
    """
    task, names = task_of(source.model, source.classes, all_pixels=all_pixels), source.classes
    if task.count == 2 and len(names) == 1:  # a segmentor of one class and the rest
        names = ('background', *names)
    name = last_stage(source.model) if layer is None else layer_named(source.model, layer)
    model = place_on(source.model.requires_grad_(False), device)
    names = names if len(names) == task.count else ()
    return Network(**{**vars(source), 'model': model, 'classes': names}, task=task, layer=name)
