"""Initial weights of a swapped model: published ones instead of the old network's, which are all removed."""

from __future__ import annotations

from fnmatch import fnmatchcase

from mmengine.config import Config
from torch import nn

from mmres2net.errors import UserError
from mmres2net.init_cfg import pretrained_nodes, without_pretrained
from mmres2net.swap.sources import Cfg, Source
from mmres2net.weights.fetching import LONG, PUBLISHED, find_published

PLUGINS = '*.after_conv?.*'  # names of a block's plugins


def new_init_cfg(cfg: Config, source: Source, arch: str, pretrained: bool) -> tuple[Cfg | None, list[str]]:
    """Return the ``init_cfg`` of the new backbone, None for random weights, and lines that say so.

    Raises:
        UserError: The old network starts from weights, and ``arch`` has none.
    """
    if not pretrained:
        return None, [f'{source.path} loads no published weights']
    holders = (source.options, *reversed(source.parents))
    old = next((name for holder in holders for name in _checkpoints(holder).values()), cfg.get('load_from') or '')
    if not old:
        return None, [f'{source.path} starts from random weights as before: this config names none']
    published = find_published(arch)
    if published is None:
        raise UserError(
            f'{source.path} starts from {old}, but {arch} has no published weights; train it from random weights with '
            f'--from-scratch, or choose from {", ".join(PUBLISHED)}'
        )
    lines = [f'{source.path} starts from {published.url} (licence {published.licence}), before from {old}']
    if published.recipe == LONG and 'res2net' not in old:
        lines.append(
            f'note: these weights were trained longer ({published.recipe}) than those of a plain ResNet, so not only '
            'the architecture differs'
        )
    return {'type': 'mmres2net.Pretrained', 'checkpoint': published.arch}, lines


def allow_random_plugins(backbone: Cfg, network: nn.Module, source: Source) -> list[str]:
    """Allow plugins of ``backbone`` to start from random weights, since published weights have none; return a line.

    Args:
        backbone: The new backbone's config, whose ``init_cfg`` is changed.
        network: The network that it builds.
        source: The old backbone.
    """
    if 'init_cfg' not in backbone or not any(fnmatchcase(name, PLUGINS) for name in network.state_dict()):
        return []
    backbone['init_cfg'] = {**backbone['init_cfg'], 'random_ok': [PLUGINS]}
    return [f'{source.path}.plugins start from random weights as before: published weights have none']


def drop_old_checkpoints(cfg: Config, source: Source) -> list[str]:
    """Remove what would load the old model over the new backbone; return a line for each."""
    lines = []
    if cfg.get('load_from'):
        lines.append(f'load_from {cfg.load_from} -> None: a checkpoint of the old network')
        cfg.load_from = None
    if cfg.get('resume'):
        lines.append('resume True -> False: that run has the old network')
        cfg.resume = False
    steps = source.path.split('.')
    for depth, holder in enumerate(source.parents, start=1):
        for key, checkpoint in _checkpoints(holder).items():
            lines.append(f'{".".join([*steps[:depth], key])} {checkpoint} -> None: a checkpoint of the old network')
            holder[key] = without_pretrained(holder[key]) if key == 'init_cfg' else None
    return lines


def _checkpoints(holder: Cfg) -> dict[str, str]:
    """Return the checkpoints that a model or backbone itself loads, by the option that names them."""
    own = {key: holder[key] for key in ('pretrained', 'init_cfg') if key in holder}
    return {
        node.path.split('.')[1]: str(node.checkpoint or 'weights that the user is to name')
        for node in pretrained_nodes(own, '')
    }
