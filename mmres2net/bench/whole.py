"""What the contenders of whole models do: a training step, or a test image from file to predictions."""

from __future__ import annotations

import copy
import importlib
import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.bench.device import set_up
from mmres2net.bench.networks import seeded_state
from mmres2net.bench.setups import assemble, at_size
from mmres2net.bench.worker import MissingError
from mmres2net.weights.naming import rename, stem_names

CANDIDATES = 300  # pairs of box and class that pass the score threshold
SCORES = 20  # of the best detections, compared


def prepared(
    config: str, data: str, embedded: bool, size: Sequence[int], backbone: Mapping[str, Any] | None = None
) -> Any:
    """Return the config of a contender; see :func:`mmres2net.bench.setups.assemble`."""
    cfg = at_size(assemble(config, data=data, embedded=embedded, backbone=backbone), size)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def build(cfg: Any, naming: str) -> nn.Module:
    """Return the model of ``cfg`` with the weights that all contenders have.

    The backbone's are random but not trivial and depend on our names of its parameters alone; ``naming`` says who named
    them. Necks and heads are initialised as for training, each from the same seed.
    """
    model = MODELS.build(cfg.model)
    for name, child in model.named_children():
        if name != 'backbone':
            _initialise(child)
    deep = any(key.startswith('stem.') for key in model.backbone.state_dict())
    layers = {their: our for our, their in stem_names(naming, deep).items()}
    theirs = model.backbone.state_dict()
    ours = {rename(key, layers): key for key in theirs}
    state = seeded_state({our: theirs[key] for our, key in ours.items()})
    model.backbone.load_state_dict({ours[our]: tensor for our, tensor in state.items()}, strict=True)
    return model


def _initialise(part: nn.Module) -> None:
    """Give a neck or head random weights that depend on nothing but its layers.

    Not all layers are initialised by ``init_weights``: others have drawn theirs when they were built, after whatever
    the backbone had drawn.
    """
    torch.manual_seed(0)
    steps = [getattr(module, 'reset_parameters', None) for module in part.modules()]
    for step in [*steps, getattr(part, 'init_weights', None)]:
        if step is not None:
            step()


def speed_up(model: nn.Module, device: str) -> None:
    """Do to ``model`` what the project's own training and testing do to it on ``device``.

    Raises:
        MissingError: This version has no such thing.
    """
    try:
        speed = importlib.import_module('mmres2net.engine.speed')
    except ModuleNotFoundError as error:
        raise MissingError('this version has no mmres2net.engine.speed') from error
    speed.speed_up(model, device)


def write_batch(config: str, data: str, embedded: bool, size: Sequence[int], images: int, file: str) -> None:
    """Write a training batch as the config's own pipeline makes it."""
    cfg = prepared(config, data, embedded, size)
    seed()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    items = [dataset[i % len(dataset)] for i in range(images)]
    Path(file).write_bytes(pickle.dumps(pseudo_collate(items)))


class Model:
    """A model as a contender has it.

    Args:
        config: The config; see :func:`mmres2net.bench.setups.assemble` for the next three.
        data: Folder of the data.
        embedded: Whether these are the embedded ones.
        size: Height and width of all images.
        backbone: Keys of the backbone that are changed.
        naming: Whose names the backbone's parameters have: ``ours``, ``mmdet`` or ``mmpretrain``.
        fast: Whether the model is sped up as the project's tools do it.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        config: str,
        data: str,
        embedded: bool,
        size: Sequence[int],
        *,
        backbone: Mapping[str, Any] | None,
        naming: str,
        fast: bool,
        device: str,
    ) -> None:
        self.device = device
        set_up(device)
        self.cfg, self._fast = prepared(config, data, embedded, size, backbone), fast
        self.model = build(self.cfg, naming).to(device)
        if fast:
            speed_up(self.model, device)

    def run(self) -> None:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return the operations of a call, two for a multiply-add; those of a model sped up are its counterpart's."""
        if self._fast:
            return {}  # it calls operations that torch does not count
        with FlopCounterMode(display=False) as counter:
            self.before()
            self.run()
        return {'operations': counter.get_total_flops()}

    def before(self) -> None:
        seed()


class TrainStep(Model):
    """Preprocessing, losses, backward pass and the optimizer's step, on a batch that is ready.

    The learning rate is 0, so that all steps are the same; the optimizer does all it does otherwise. ``batch`` is a
    file of :func:`write_batch`.
    """

    def __init__(
        self,
        config: str,
        data: str,
        embedded: bool,
        size: Sequence[int],
        *,
        batch: str,
        backbone: Mapping[str, Any] | None = None,
        naming: str = 'ours',
        fast: bool = False,
        device: str = 'cpu',
    ) -> None:
        super().__init__(config, data, embedded, size, backbone=backbone, naming=naming, fast=fast, device=device)
        self.model.train()
        settings = copy.deepcopy(self.cfg.optim_wrapper)
        settings.optimizer.lr = 0.0
        self._wrapper = build_optim_wrapper(self.model, settings)
        self._ready = pickle.loads(Path(batch).read_bytes())

    def before(self) -> None:
        super().before()
        self._batch = copy.deepcopy(self._ready)  # preprocessing writes into it

    def run(self) -> None:
        self.model.train_step(self._batch, self._wrapper)  # type: ignore[operator]

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the losses. Those that follow the choice of regions are ``sampled``: rounding can change a choice."""
        self.before()
        with without_dropout(self.model), torch.no_grad():
            data = self.model.data_preprocessor(self._batch, True)  # type: ignore[operator]
            losses = self.model(**data, mode='loss')
        found = {}
        for name, value in losses.items():
            if 'loss' in name:
                kind = 'loss' if 'rpn' in name or not hasattr(self.model, 'roi_head') else 'sampled'
                found[f'{kind} {name}'] = _array(value)
        return found


class Prediction(Model):
    """An image from its file to predictions: loading, resizing, preprocessing, the network, post-processing.

    Random weights find nothing, so a detector's score threshold is set to where 300 pairs of box and class pass.
    """

    def __init__(
        self,
        config: str,
        data: str,
        embedded: bool,
        size: Sequence[int],
        *,
        backbone: Mapping[str, Any] | None = None,
        naming: str = 'ours',
        fast: bool = False,
        device: str = 'cpu',
    ) -> None:
        super().__init__(config, data, embedded, size, backbone=backbone, naming=naming, fast=fast, device=device)
        self.model.eval()
        self._dataset = DATASETS.build(self.cfg.test_dataloader.dataset)
        self._dataset.full_init()
        self._predictions: list[Any] = []
        if hasattr(self.model, 'roi_head'):
            self._set_threshold()

    def _set_threshold(self) -> None:
        """Find the score that the candidates reach, and set it."""
        scores: list[Tensor] = []
        head: Any = self.model.roi_head
        handle = head.bbox_head.register_forward_hook(lambda module, inputs, out: scores.append(out[0].softmax(-1)))
        self.run()
        handle.remove()
        reached = scores[0][:, :-1].flatten().sort(descending=True).values
        head.test_cfg.score_thr = float(reached[min(CANDIDATES, len(reached) - 1)])

    def run(self) -> None:
        batch = pseudo_collate([self._dataset[0]])
        with torch.no_grad():
            self._predictions = self.model.test_step(batch)  # type: ignore[operator]

    def outputs(self) -> dict[str, np.ndarray]:
        self.run()
        (sample,) = self._predictions
        if not hasattr(self.model, 'roi_head'):
            return {'logits': _array(sample.seg_logits.data)}
        found = sample.pred_instances.scores.sort(descending=True).values[:SCORES]
        return {'scores': _array(found)}


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Let no value be dropped: which ones are depends on the memory format."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    rates = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate


def seed() -> None:
    """Let all that is random begin anew: flips, and the choice of regions that losses are taken from."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _array(value: Any) -> np.ndarray:
    tensor = torch.stack([one.sum() for one in value]) if isinstance(value, list | tuple) else value
    return tensor.detach().float().cpu().numpy()
