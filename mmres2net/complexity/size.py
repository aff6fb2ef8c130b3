"""The image size that a config tests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError

CROPS = ('CenterCrop', 'RandomResizedCrop', 'RandomCrop')
WIDTH_FIRST = ('CenterCrop', 'Resize')  # of mmcv; mmdet's RandomCrop too, the other crops are height and width


def image_size(cfg: Config) -> tuple[int, int]:
    """Return height and width in pixels of the images that a config tests on; landscape where sizes vary.

    For a classifier it is the test crop, else the training crop. Where images keep their sizes, the config may give
    the usual one as ``image_size``, height and width. A UserError says that the config does not tell.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        height, width = _pair(preprocessor['size'])
        return height, width
    width_first = (*WIDTH_FIRST, *(['RandomCrop'] if cfg.get('default_scope') == 'mmdet' else []))
    loaders = (cfg.get('test_dataloader'), cfg.get('train_dataloader'))
    sizes = [size for loader in loaders for size in _sizes(loader, width_first)]
    if not sizes and cfg.get('image_size'):
        height, width = cfg.image_size
        return height, width
    if not sizes:
        raise UserError('this config does not say on what image size it tests; give it with --size HxW')
    divisor = preprocessor.get('pad_size_divisor') or 1
    height, width = (-(-side // divisor) * divisor for side in sizes[0])
    return height, width


def _sizes(dataloader: Any, width_first: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield (height, width) of the crops of a pipeline, then of its other scales."""
    nodes = [(str(node.get('type')).rpartition('.')[2], node) for _, node in walk(dataloader or {}, '')]
    crops = [(kind, node.get('crop_size') or node.get('scale')) for kind, node in nodes if kind in CROPS]
    scales = [(kind, node.get('scale')) for kind, node in nodes if kind == 'Resize']
    for kind, size in crops + scales:
        if size:
            first, second = _pair(size)
            yield (second, first) if kind in width_first else (first, second)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
