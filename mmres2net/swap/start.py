"""What a swapped model starts from: published weights in the place of the old network's, and nothing else of those."""

from __future__ import annotations

from fnmatch import fnmatchcase

from mmengine.config import Config
from torch import nn

from mmres2net.errors import UserError
from mmres2net.init_cfg import pretrained_nodes, without_pretrained
from mmres2net.swap.sources import Cfg, Source
from mmres2net.weights.published import LONG, PUBLISHED, find_published

PLUGINS = '*.after_conv?.*'  # where a block keeps them


def new_start(cfg: Config, source: Source, arch: str, pretrained: bool) -> tuple[Cfg | None, list[str]]:
    """Return the ``init_cfg`` of the new backbone, None for random weights, and lines that say so.

    Raises:
        UserError: The old network starts from weights, and ``arch`` has none.
    """
    if not pretrained:
        return None, [f'{source.path} loads no published weights']
    old = _old_start(cfg, source)
    if not old:
        return None, [f'{source.path} starts from random weights as before: this config names none']
    found = find_published(arch)
    if found is None:
        raise UserError(
            f'{source.path} starts from {old}, but {arch} has no published weights; train it from random ones with '
            f'--from-scratch, or choose from {", ".join(PUBLISHED)}'
        )
    lines = [f'{source.path} starts from {found.url} (licence {found.licence}), before from {old}']
    if found.recipe == LONG and 'res2net' not in old:
        lines.append(
            f'note: not like for like: these weights were trained longer and harder ({found.recipe}) than those of a '
            'plain ResNet, so the architecture is not all that differs'
        )
    return {'type': 'mmres2net.Pretrained', 'checkpoint': found.arch}, lines


def start_plugins(backbone: Cfg, network: nn.Module, source: Source) -> list[str]:
    """Let the plugins of ``backbone`` start random beside published weights, which have none; return a line for it.

    Args:
        backbone: The new backbone's config, whose ``init_cfg`` is replaced.
        network: What it builds.
        source: The old backbone.
    """
    if 'init_cfg' not in backbone or not any(fnmatchcase(name, PLUGINS) for name in network.state_dict()):
        return []
    backbone['init_cfg'] = {**backbone['init_cfg'], 'random_ok': [PLUGINS]}
    return [f'{source.path}.plugins start from random weights as before: published weights have none']


def drop_old_checkpoints(cfg: Config, source: Source) -> list[str]:
    """Take out what would load the whole old model over the new backbone; return a line for each."""
    lines = []
    if cfg.get('load_from'):
        lines.append(f'load_from {cfg.load_from} -> None: of the old network')
        cfg.load_from = None
    if cfg.get('resume'):
        lines.append('resume True -> False: that run has the old network')
        cfg.resume = False
    steps = source.path.split('.')
    for depth, holder in enumerate(source.parents, start=1):
        for key, checkpoint in _whole_models(holder).items():
            lines.append(f'{".".join([*steps[:depth], key])} {checkpoint} -> None: of the old network')
            holder[key] = without_pretrained(holder[key]) if key == 'init_cfg' else None
    return lines


def _old_start(cfg: Config, source: Source) -> str:
    """Return what the old network starts from; nothing where that is random weights."""
    named = [name for holder in (source.options, *reversed(source.parents)) for name in _whole_models(holder).values()]
    return next(iter(named), cfg.get('load_from') or '')


def _whole_models(holder: Cfg) -> dict[str, str]:
    """Return the checkpoints that a model or backbone itself loads, by the option that names them."""
    own = {key: holder[key] for key in ('pretrained', 'init_cfg') if key in holder}
    return {
        node.path.split('.')[1]: str(node.checkpoint or 'weights that the user is to name')
        for node in pretrained_nodes(own, '')
    }
