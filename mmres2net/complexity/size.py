"""On what size of image a config tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError

CROPS = ('CenterCrop', 'RandomResizedCrop', 'RandomCrop')


def image_size(cfg: Config) -> tuple[int, int]:
    """Return height and width in pixels of the images that a config tests on, a landscape one where sizes vary.

    A classifier's is the crop that it tests on, else the crop that it is trained on. Where images keep their sizes, the
    config may name the usual one as ``image_size``, height and width.

    Raises:
        UserError: The config does not say.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size'):
        height, width = _pair(preprocessor['size'])
        return height, width
    sizes = [*_sizes(cfg.get('test_dataloader')), *_sizes(cfg.get('train_dataloader'))]
    if not sizes and cfg.get('image_size'):
        height, width = cfg.image_size
        return height, width
    if not sizes:
        raise UserError('this config does not say on what size of image it tests; give it with --size HxW')
    width, height = sizes[0]
    divisor = preprocessor.get('pad_size_divisor') or 1
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _sizes(dataloader: Any) -> Iterator[tuple[int, int]]:
    """Yield (width, height) of the crops of a pipeline, then of its other scales."""
    nodes = [node for _, node in walk(dataloader or {}, '')]
    for node in nodes:
        if str(node.get('type')).rpartition('.')[2] in CROPS:
            yield _pair(node.get('crop_size') or node['scale'])
    for node in nodes:
        if str(node.get('type')).rpartition('.')[2] == 'Resize' and node.get('scale'):
            yield _pair(node['scale'])


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
