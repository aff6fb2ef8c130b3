"""The input of a swapped model: mean, deviation and channel order are the network's, so they travel with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.swap.sources import Cfg
from mmres2net.weights.published import Pixels, pixels_of

FLAGS = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')


def set_pixels(cfg: Config, arch: str, pixels: Pixels | None = None) -> list[str]:
    """Make every data preprocessor of ``cfg`` give the pixels that ``arch`` wants; return a line for each change.

    Args:
        cfg: The config, which is changed.
        arch: The architecture.
        pixels: What its weights want; None: as the published ones do.

    Raises:
        UserError: The config normalises its images elsewhere, or feeds another network with the same pixels.
    """
    pixels = pixels or pixels_of(arch)
    if pixels is None or _other_channels(cfg):
        return []
    nodes = list(_preprocessors(cfg))
    if not any('data_preprocessor' in path for path, _ in nodes):
        raise UserError(
            'this config has no data_preprocessor, so the swap cannot tell where its images are normalised; give the '
            f'model one with mean={list(pixels.mean)} and std={list(pixels.std)}, in RGB'
        )
    _check_pipelines(cfg)
    flip = not _loads_rgb(cfg)
    lines = [line for path, node in nodes for line in _set(node, path, _wanted(node, cfg, pixels, flip))]
    teacher = cfg.model.get('teacher_config')
    if lines and teacher:
        raise UserError(
            f'model.teacher_config={teacher} names a network that gets the same pixels as the backbone, which would '
            f'have to change: {lines[0]}; choose a config whose images are RGB with mean {list(pixels.mean)}'
        )
    return lines


def _other_channels(cfg: Config) -> bool:
    """Whether images have another number of channels than three: their statistics are nobody's but the config's."""
    return any(node.get('in_channels', 3) != 3 for path, node in walk(cfg.model, 'model') if path.endswith('backbone'))


def _preprocessors(cfg: Config) -> Iterator[tuple[str, Cfg]]:
    """Yield everything that normalises images: data preprocessors, and image norms by another name in the model."""
    for path, node in [*walk(cfg.get('data_preprocessor') or {}, 'data_preprocessor'), *walk(cfg.model, 'model')]:
        named = path.endswith('data_preprocessor') and node and not isinstance(node.get('data_preprocessor'), dict)
        if named or ({'mean', 'std'} <= set(node) and set(FLAGS) & set(node)):
            yield path, node


def _wanted(node: Cfg, cfg: Config, pixels: Pixels, flip: bool) -> Cfg:
    wanted: Cfg = {'mean': list(pixels.mean), 'std': list(pixels.std)}
    scope = node.get('_scope_') or cfg.get('default_scope')
    named = [flag for flag in FLAGS if flag in node]
    if 'to_rgb' in named or (not named and (scope == 'mmpretrain' or 'mmpretrain.' in str(node.get('type')))):
        return {**wanted, 'to_rgb': flip}
    return {**wanted, 'bgr_to_rgb': flip, **({'rgb_to_bgr': False} if 'rgb_to_bgr' in named else {})}


def _set(node: Cfg, path: str, wanted: Cfg) -> Iterator[str]:
    for key, value in wanted.items():
        old = node.get(key)
        if not _same(old, value):
            yield f'{path}.{key} {old} -> {value}'
            node[key] = value


def _same(old: Any, new: Any) -> bool:
    """Whether two settings are the same: 0.485 * 255 is 123.675, though not to the last digit."""
    if not isinstance(old, list | tuple) or not isinstance(new, list):
        return old == new
    return len(old) == len(new) and all(abs(a - b) < 0.01 for a, b in zip(old, new, strict=True))


def _transforms(cfg: Config) -> Iterator[tuple[str, Cfg]]:
    for part in ('train', 'val', 'test'):
        yield from walk(cfg.get(f'{part}_dataloader') or {}, f'{part}_dataloader')
    yield from walk(cfg.get('tta_pipeline') or {}, 'tta_pipeline')


def _name(node: Cfg) -> str:
    kind: Any = node.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def _check_pipelines(cfg: Config) -> None:
    for path, node in _transforms(cfg):
        if _name(node) == 'Normalize':
            raise UserError(
                f'{path} is a Normalize: this config normalises its images in the pipeline, and the swap changes the '
                'data_preprocessor alone; take it out of a copy of the config and give data_preprocessor its numbers'
            )


def _loads_rgb(cfg: Config) -> bool:
    """Whether images are read as RGB; MMCV reads BGR unless it is told otherwise."""
    orders = {
        path: str(node['channel_order'])
        for path, node in _transforms(cfg)
        if _name(node).startswith('Load') and 'channel_order' in node
    }
    loaders = [path for path, node in _transforms(cfg) if _name(node).startswith('LoadImage')]
    rgb = [path for path, order in orders.items() if order == 'rgb']
    if rgb and len(rgb) != len(loaders):
        raise UserError(
            f'{rgb[0]} reads images as RGB, {next(path for path in loaders if path not in rgb)} as BGR: no '
            'data_preprocessor can serve both; read all of them alike'
        )
    return bool(rgb)
