"""Configs as they are compared: any data, any size, no published weights, another backbone in their place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import datasets_of, point_at, walk
from mmres2net.data.shapes import ShapesSpec, make_shapes
from mmres2net.engine.config import load_config, single_process_norms, without_published_weights

# Configs of the same kind on the embedded data, by the type of the model.
EMBEDDED = {
    'FasterRCNN': 'demo/faster_rcnn_r50',
    'MaskRCNN': 'demo/mask_rcnn_r50',
    'EncoderDecoder': 'demo/deeplabv3plus_r50',
}
SHAPES = ShapesSpec(n_train=32, n_val=8, min_side=320, max_side=480, min_size=24, max_size=240)


def assemble(config: str, *, data: str, embedded: bool, backbone: Mapping[str, Any] | None = None) -> Config:
    """Return a config that runs anywhere: random weights, plain batch norm, data from ``data``.

    Args:
        config: A file, the name of a shipped config, or ``HOST::NAME``.
        data: Folder of the data in their standard layout.
        embedded: ``data`` is the embedded set, whose classes are its own.
        backbone: Keys of the backbone that are changed.

    Raises:
        UserError: No such config, or the data do not fit it.
    """
    cfg = without_published_weights(load_config(config))
    cfg, _ = single_process_norms(cfg)
    if backbone:
        cfg.merge_from_dict({f'model.backbone.{key}': value for key, value in backbone.items()})
        cfg.model.backbone.init_cfg = None
    if embedded:
        _embed(cfg)
    return point_at(cfg, data, ('train', 'test'))


def _embed(cfg: Config) -> None:
    """Take the data sets of our demo of the same kind; the pipelines stay the config's own."""
    demo = load_config(EMBEDDED[cfg.model.type])
    for part in ('train', 'test'):
        (own,), (theirs,) = datasets_of(cfg, part), datasets_of(demo, part)
        pipeline = own['pipeline']
        for key in list(own):
            del own[key]
        own.update(copy.deepcopy(theirs), pipeline=pipeline)


def make_data(folder: str) -> str:
    """Make images and annotations in ``folder``, of the sizes that photographs come in; return it."""
    return str(make_shapes(folder, spec=SHAPES))


def at_size(cfg: Config, size: Sequence[int]) -> Config:
    """Return ``cfg`` with all images, of training and of testing, exactly ``size`` (height, width) in pixels.

    Random sizes and crops become that size. What a segmentor pads its images to follows: to 16 k + 1 pixels.
    """
    cfg = copy.deepcopy(cfg)
    resize = {'type': 'Resize', 'scale': (size[1], size[0]), 'keep_ratio': False}
    for part in ('train', 'test'):
        for dataset in datasets_of(cfg, part):
            dataset['pipeline'] = list(_resized(dataset['pipeline'], resize))
    padded = tuple(-(-(side - 1) // 16) * 16 + 1 for side in size)
    for _, node in walk(cfg.model.data_preprocessor, ''):
        if 'size' in node:
            node['size'] = padded
    return cfg


def _resized(pipeline: Sequence[Mapping[str, Any]], resize: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    done = False
    for transform in pipeline:
        kind = transform['type']
        if not done and kind.startswith('Pack'):  # a segmentor tests images as they are
            yield resize
        if kind in ('Resize', 'RandomResize', 'RandomChoiceResize'):
            done = True
            yield resize
        elif kind != 'RandomCrop':
            yield transform
