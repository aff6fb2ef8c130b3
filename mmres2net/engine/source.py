"""A trained model: built from a config, with all weights of a checkpoint; and what its test pipeline does."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.data.layout import dataset_of_test, walk
from mmres2net.engine.build import build_model, building, class_of, scope_of
from mmres2net.engine.config import load_config, single_process_norms, without_published_weights
from mmres2net.engine.own_data.flag import classes_and_images
from mmres2net.engine.weights import check_normalization, load_state_strictly
from mmres2net.errors import UserError, reason_of
from mmres2net.init_cfg import quiet_initialization
from mmres2net.models import ALIASES, ARCHS, Res2Net, Res2NetDLA
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.loading import check_stage_pool, fill_counters, to_ours
from mmres2net.weights.naming import recognise
from mmres2net.weights.reading import MAX_CLASSES, class_names, read_checkpoint, unwrap

RANDOM = 'random weights'
COLOR_TYPES = ('color', 'color_ignore_orientation')
DECODERS = ('cv2', 'pillow', 'turbojpeg')


@dataclass(frozen=True)
class ModelSource:
    """A model in evaluation mode with its config."""

    cfg: Config
    model: Any  # as its OpenMMLab library builds it
    title: str  # name of the config
    weights: str  # name of the checkpoint
    classes: tuple[str, ...]  # class names; empty where they are unknown
    palette: tuple[tuple[int, int, int], ...]  # colors of the classes, or empty
    images: tuple[Path, ...] = ()  # of own data, to test the model on


def read_source(
    config: str,
    checkpoint: str | None,
    *,
    options: dict[str, Any] | None = None,
    data: str | None = None,
    allow_pickle: bool = False,
) -> ModelSource:
    """Return the model of a config with the weights of a checkpoint; a UserError if they do not fit each other.

    Args:
        config: A config file, the name of a shipped one, or ``LIBRARY::NAME``.
        checkpoint: As in :func:`mmres2net.weights.fetching.fetch_checkpoint`; of classifiers also published weights
            with their classifier. None: random weights.
        options: Settings that override the config.
        data: The value of ``--data``: data with the classes of the model, and with images to test it on.
        allow_pickle: Whether the checkpoint may run code.
    """
    cfg = load_config(config, options)
    content = None if checkpoint is None else _read(cfg, checkpoint, allow_pickle)
    name = Path(config.rpartition('::')[2]).stem
    images: list[Path] = []
    if data:
        cfg, images = classes_and_images(cfg, data, name, content or {}, checkpoint or RANDOM)
    return replace(make_source(cfg, content, name, checkpoint or RANDOM), images=tuple(images))


def make_source(cfg: Config, content: Mapping[str, Any] | None, title: str, weights: str) -> ModelSource:
    """Return the model of a config with the weights in a checkpoint's content (None: random), else a UserError."""
    if not cfg.get('model'):
        raise UserError(f'the config {title} has no model')
    cfg = single_process_norms(without_published_weights(cfg))[0]
    for _, node in walk(cfg.model, 'model'):
        if node.get('with_cp'):  # activation checkpointing would run blocks twice in a backward pass
            node['with_cp'] = False
    model = build(cfg, random=content is None)
    if content is not None:
        load_state_strictly(model, with_classifier(unwrap(content), model), weights)
    meta = metainfo_of(content or {}, cfg)
    return ModelSource(cfg, model, title, Path(weights).name, class_names(meta), _palette(meta))


def place_on(model: Any, device: str) -> Any:
    """Return ``model`` on a device, named as torch names them; a UserError if there is none."""
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f'--device {device}: {reason_of(error)}; use cpu') from error


def build(cfg: Config, *, random: bool) -> Any:
    """Return the model of ``cfg`` in evaluation mode; ``random`` weights are always initialized in the same way."""
    torch.manual_seed(0)
    with quiet_initialization():
        model = build_model(cfg, init_weights=random)
    if random and hasattr(model, 'backbone'):
        calibrate_batchnorm(model.backbone)
    return model.eval()


def calibrate_batchnorm(network: torch.nn.Module) -> None:
    """Set the running statistics of batch norms on noise: with those of a new network, values grow in each block."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = None  # the plain mean
    with torch.no_grad():
        network(torch.randn(2, 3, 128, 128))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


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
    """Return published weights of a classifier, with a classifier ``fc``, by the names of mmpretrain's ``model``.

    Other weights are returned unchanged. Weights of another network than the model's backbone are a UserError.
    """
    head = getattr(model, 'head', None)
    if 'fc.weight' not in state or not hasattr(head, 'fc'):
        return dict(state)
    network = {name: tensor for name, tensor in state.items() if not name.startswith('fc.')}
    if isinstance(model.backbone, Res2Net | Res2NetDLA):
        recognised = recognise(state)
        check_stage_pool(recognised, model.backbone)
        network = to_ours(state, recognised)[0]
    renamed = {f'backbone.{name}': tensor for name, tensor in network.items()}
    renamed['head.fc.weight'] = state['fc.weight'].flatten(1)  # of a DLA it is a 1x1 convolution
    if 'fc.bias' in state:
        renamed['head.fc.bias'] = state['fc.bias']
    fill_counters(renamed)
    return renamed


def metainfo_of(content: Mapping[str, Any], cfg: Config) -> dict[str, Any]:
    """Return what is known about the classes: from the checkpoint, the config's data set, or the data set's class."""
    meta = content.get('meta')
    trained = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if isinstance(trained, dict) and trained:
        return dict(trained)
    node = dataset_of_test(cfg)
    if node.get('metainfo'):
        return dict(node['metainfo'])
    return dict(getattr(dataset_class(cfg), 'METAINFO', {}))


def dataset_class(cfg: Config) -> Any:
    """Return the class of the test data set; None where there is none of this name."""
    return class_of(cfg, DATASETS, dataset_of_test(cfg).get('type'))


def _palette(meta: Mapping[str, Any]) -> tuple[tuple[int, int, int], ...]:
    palette = meta.get('palette') or meta.get('PALETTE') or ()
    if not isinstance(palette, list | tuple) or len(palette) > MAX_CLASSES:
        return ()
    if not all(isinstance(c, list | tuple) and len(c) == 3 and all(isinstance(v, int) for v in c) for c in palette):
        return ()
    return tuple((min(max(r, 0), 255), min(max(g, 0), 255), min(max(b, 0), 255)) for r, g, b in palette)


def kind_of(step: Any) -> str:
    """Return the name of the class of a step, built or in a config, without scope."""
    kind = step.get('type') if isinstance(step, Mapping) else type(step)
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def image_steps(cfg: Config) -> list[dict[str, Any]]:
    """Return the steps of the test pipeline except those that load annotations."""
    steps = [dict(step) for step in dataset_of_test(cfg).get('pipeline') or []]
    return [step for step in steps if loads_image(step) or not kind_of(step).startswith('Load')]


def loads_image(step: Any) -> bool:
    """Return whether a step loads the image."""
    return kind_of(step).startswith('LoadImage')


def channel_order_of(cfg: Config) -> str:
    """Return the channel order, ``rgb`` or ``bgr``, of the images that the data preprocessor gets.

    It is decided by the loading step of the test pipeline, else by an attribute ``channel_order`` of the data set's
    class, which then holds the pixels itself. A UserError says that neither does, or that images are not loaded as
    8-bit color images.
    """
    loader = next((step for step in image_steps(cfg) if loads_image(step)), None)
    if loader is None:
        kind = dataset_class(cfg)
        cifar = 'CIFAR' in kind_of({'type': kind})  # mmpretrain's classes do not say so
        order = getattr(kind, 'channel_order', 'rgb' if cifar else None)
        if order in ('rgb', 'bgr'):
            return order
        raise UserError(
            'the channel order of the images is unknown: the test pipeline (test_dataloader.dataset.pipeline) loads no '
            'image file, and the class of the data set has no attribute channel_order = "rgb" or "bgr"'
        )
    decoder = loader.get('imdecode_backend') or 'cv2'
    known = loader.get('color_type', 'color') in COLOR_TYPES and decoder in DECODERS
    if kind_of(loader) != 'LoadImageFromFile' or not known:
        raise UserError(
            f'the test pipeline loads images by {loader}; supported is LoadImageFromFile with color_type '
            f'{" or ".join(COLOR_TYPES)} and imdecode_backend {", ".join(DECODERS)}'
        )
    return 'rgb' if loader.get('channel_order') == 'rgb' else 'bgr'


def applies_exif(cfg: Config) -> bool:
    """Whether the test pipeline turns images by their EXIF orientation."""
    return not any(step.get('color_type') == 'color_ignore_orientation' for step in image_steps(cfg))


def build_steps(cfg: Config, *, from_file: bool = False) -> list[Any]:
    """Return the steps behind the one that loads the image, or with it (``from_file``), ready to be called."""
    nodes = [step for step in image_steps(cfg) if from_file or not loads_image(step)]
    if not nodes:
        raise UserError('the config has no test pipeline (test_dataloader.dataset.pipeline), so images have no size')
    with scope_of(cfg), building('the test pipeline of this config'):
        return [TRANSFORMS.build(node) for node in nodes]


def run_step(step: Any, results: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return ``results`` after a step of :func:`build_steps`; a UserError names ``path`` if it fails."""
    try:
        out = step(results)
    except Exception as error:  # steps raise whatever they like
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline fails: {reason_of(error)}') from error
    if not isinstance(out, dict):
        raise UserError(f'{path}: the step {kind_of(step)} of the test pipeline gives nothing for this image')
    return out


def run_steps(steps: Sequence[Any], results: dict[str, Any], path: str | Path) -> dict[str, list[Any]]:
    """Return ``results`` after ``steps`` as a batch of one; a UserError names ``path`` if it is no image (C, h, w)."""
    for step in steps:
        results = run_step(step, results, path)
    inputs = results.get('inputs')
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise UserError(f'{path}: the test pipeline does not end with one packed image (C, h, w)')
    return {'inputs': [inputs], 'data_samples': [results['data_samples']]}


def first_results(cfg: Config, path: Path) -> dict[str, Any]:
    """Return what the first step of the test pipeline gets for an image file."""
    if any(loads_image(step) for step in image_steps(cfg)):
        return {'img_path': str(path), 'img_id': 0, 'sample_idx': 0}
    return loaded_results(cfg, mmcv.imread(path, channel_order='rgb'), path)  # the data set holds the pixels


def loaded_results(cfg: Config, image: np.ndarray, path: str | Path = '') -> dict[str, Any]:
    """Return what the step behind the one that loads the image gets, for ``image`` (H, W, 3) uint8 RGB."""
    pixels = np.ascontiguousarray(image if channel_order_of(cfg) == 'rgb' else image[..., ::-1])
    if any(step.get('to_float32') for step in image_steps(cfg) if loads_image(step)):
        pixels = pixels.astype(np.float32)
    shape = image.shape[:2]
    return {'img_path': str(path), 'img_id': 0, 'sample_idx': 0, 'img': pixels, 'img_shape': shape, 'ori_shape': shape}
