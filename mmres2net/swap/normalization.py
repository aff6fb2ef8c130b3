"""The input of a swapped model: mean, std and channel order belong to the network, so they change with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.swap.sources import Cfg, type_name
from mmres2net.weights.fetching import Normalization

FLAGS = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')


def set_normalization(cfg: Config, wanted: Normalization) -> list[str]:
    """Make every data preprocessor of ``cfg`` normalize images as ``wanted``; return a line for each change.

    Args:
        cfg: The config, which is changed. One whose images do not have three channels stays as it is.
        wanted: What the network expects.

    Raises:
        UserError: The config normalizes images elsewhere, or feeds another network with the same images.
    """
    if any(node.get('in_channels', 3) != 3 for path, node in walk(cfg.model, 'model') if path.endswith('backbone')):
        return []
    nodes = list(_normalizers(cfg))
    settings = f'mean={list(wanted.mean)} and std={list(wanted.std)}, in RGB'
    if not any('data_preprocessor' in path for path, _ in nodes):
        raise UserError(f'this config has no data_preprocessor that normalizes images; add one with {settings}')
    for path, node in _transforms(cfg):
        if type_name(node.get('type')) == 'Normalize':
            raise UserError(
                f'{path} normalizes images in the pipeline, and the swap can change only the data_preprocessor; remove '
                f'it from a copy of the config, and give data_preprocessor {settings}'
            )
    flip = not _loads_rgb(cfg)
    lines = [line for path, node in nodes for line in _set(node, path, _settings_of(node, cfg, wanted, flip))]
    teacher = cfg.model.get('teacher_config')
    if lines and teacher:
        raise UserError(
            f'model.teacher_config={teacher} is a network that gets the same images as the backbone, which would have '
            f'to change: {lines[0]}; choose a config with {settings}'
        )
    return lines


def _normalizers(cfg: Config) -> Iterator[tuple[str, Cfg]]:
    """Yield data preprocessors, and image norms under another name in the model."""
    for path, node in [*walk(cfg.get('data_preprocessor') or {}, 'data_preprocessor'), *walk(cfg.model, 'model')]:
        named = path.endswith('data_preprocessor') and node and not isinstance(node.get('data_preprocessor'), dict)
        if named or ({'mean', 'std'} <= set(node) and set(FLAGS) & set(node)):
            yield path, node


def _settings_of(node: Cfg, cfg: Config, wanted: Normalization, flip: bool) -> Cfg:
    """Return the settings of one data preprocessor; ``flip``: images are read as BGR."""
    settings: Cfg = {'mean': list(wanted.mean), 'std': list(wanted.std)}
    kind, named = node.get('type'), [flag for flag in FLAGS if flag in node]
    library = kind.__module__ if isinstance(kind, type) else str(kind) if '.' in str(kind) else node.get('_scope_')
    library = library or cfg.get('default_scope') or ''
    if 'to_rgb' in named or (not named and library.startswith('mmpretrain')):
        return {**settings, 'to_rgb': flip}
    return {**settings, 'bgr_to_rgb': flip, **({'rgb_to_bgr': False} if 'rgb_to_bgr' in named else {})}


def _set(node: Cfg, path: str, settings: Cfg) -> Iterator[str]:
    for key, value in settings.items():
        old = node.get(key)
        if not _same(old, value):
            yield f'{path}.{key} {old} -> {value}'
            node[key] = value


def _same(old: Any, new: Any) -> bool:
    """Whether two settings are equal: 0.485 * 255 is 123.675, though not to the last digit."""
    if not isinstance(old, list | tuple) or not isinstance(new, list):
        return bool(old) == new if isinstance(new, bool) else old == new
    return len(old) == len(new) and all(abs(a - b) < 0.01 for a, b in zip(old, new, strict=True))


def _transforms(cfg: Config) -> Iterator[tuple[str, Cfg]]:
    for part in ('train', 'val', 'test'):
        yield from walk(cfg.get(f'{part}_dataloader') or {}, f'{part}_dataloader')
    yield from walk(cfg.get('tta_pipeline') or {}, 'tta_pipeline')


def _loads_rgb(cfg: Config) -> bool:
    """Whether images are read as RGB; MMCV reads BGR by default."""
    loaders = {
        path: str(node.get('channel_order', 'bgr'))
        for path, node in _transforms(cfg)
        if type_name(node.get('type')).startswith('LoadImage' if 'channel_order' not in node else 'Load')
    }
    rgb = [path for path, order in loaders.items() if order == 'rgb']
    bgr = [path for path, order in loaders.items() if order != 'rgb']
    if rgb and bgr:
        raise UserError(
            f'{rgb[0]} reads images as RGB, {bgr[0]} as BGR: no data_preprocessor fits both; read all of them alike'
        )
    return bool(rgb)
