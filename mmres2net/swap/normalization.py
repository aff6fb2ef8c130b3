"""The input of a swapped model: mean, std and channel order belong to the network, so they change with it."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmres2net.data.layout import walk
from mmres2net.errors import UserError
from mmres2net.swap.sources import Cfg, type_library, type_name
from mmres2net.weights.fetching import Normalization

FLAGS = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')


def set_normalization(cfg: Config, wanted: Normalization) -> list[str]:
    """Make every data preprocessor of ``cfg`` normalize RGB images as ``wanted``; return a line for each change."""
    if any(node.get('in_channels', 3) != 3 for path, node in walk(cfg.model, 'model') if path.endswith('backbone')):
        return []
    nodes = list(_normalizers(cfg))
    settings = f'mean={list(wanted.mean)} and std={list(wanted.std)}, in RGB'
    if not any('data_preprocessor' in path for path, _ in nodes):
        raise UserError(f'this config has no data_preprocessor that normalizes images; add one with {settings}')
    flip, lines = not _loads_rgb(cfg, settings), []
    for path, node in nodes:
        new: Cfg = {'mean': list(wanted.mean), 'std': list(wanted.std)}
        named = [flag for flag in FLAGS if flag in node]
        library = type_library(node.get('type', '')) or node.get('_scope_') or cfg.get('default_scope') or ''
        if 'to_rgb' in named or (not named and library == 'mmpretrain'):
            new['to_rgb'] = flip
        else:
            new |= {'bgr_to_rgb': flip, **({'rgb_to_bgr': False} if 'rgb_to_bgr' in named else {})}
        for key, value in new.items():
            if not _same(node.get(key), value):
                lines.append(f'{path}.{key} {node.get(key)} -> {value}')
                node[key] = value
    teacher = cfg.model.get('teacher_config')
    if lines and teacher:
        what = f'model.teacher_config={teacher} is a network that gets the same images as the backbone'
        raise UserError(f'{what}, which would have to change: {lines[0]}; choose a config with {settings}')
    return lines


def _normalizers(cfg: Config) -> Iterator[tuple[str, Cfg]]:
    """Yield data preprocessors, and image norms under another name in the model."""
    for path, node in [*walk(cfg.get('data_preprocessor') or {}, 'data_preprocessor'), *walk(cfg.model, 'model')]:
        named = path.endswith('data_preprocessor') and node and not isinstance(node.get('data_preprocessor'), dict)
        if named or ({'mean', 'std'} <= set(node) and set(FLAGS) & set(node)):
            yield path, node


def _same(old: Any, new: Any) -> bool:
    """Whether two settings are equal: 0.485 * 255 is 123.675, though not to the last digit."""
    if not isinstance(old, list | tuple) or not isinstance(new, list):
        return bool(old) == new if isinstance(new, bool) else old == new
    return len(old) == len(new) and all(abs(a - b) < 0.01 for a, b in zip(old, new, strict=True))


def _loads_rgb(cfg: Config, settings: str) -> bool:
    """Whether images are read as RGB; MMCV reads BGR by default."""
    parts = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline')
    loaders: dict[bool, str] = {}
    for path, node in [pair for part in parts for pair in walk(cfg.get(part) or {}, part)]:
        name = type_name(node.get('type'))
        if name == 'Normalize':
            what = f'{path} normalizes images in the pipeline, and the swap can change only the data_preprocessor'
            raise UserError(f'{what}; remove it from a copy of the config, and give data_preprocessor {settings}')
        if name.startswith('LoadImage' if 'channel_order' not in node else 'Load'):
            loaders.setdefault(node.get('channel_order') == 'rgb', path)
    if len(loaders) == 2:
        what = f'{loaders[True]} reads images as RGB, {loaders[False]} as BGR: no data_preprocessor fits both'
        raise UserError(f'{what}; read all of them alike')
    return True in loaders
