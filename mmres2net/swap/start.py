"""Initial weights of a swapped model: published ones instead of the old network's, which are all removed."""

from __future__ import annotations

from fnmatch import fnmatchcase

from mmengine.config import Config
from torch import nn

from mmres2net.errors import UserError
from mmres2net.init_cfg import PretrainedNode, drop_pretrained, pretrained_nodes
from mmres2net.swap.sources import Cfg, Source, type_name
from mmres2net.weights.fetching import LONG, PUBLISHED, find_published

PLUGINS = '*.after_conv?.*'  # names of a block's plugins
OWN = ('pretrained', 'init_cfg')  # options of a model or backbone by which it loads a checkpoint itself


def new_init_cfg(cfg: Config, source: Source, arch: str, pretrained: bool) -> tuple[Cfg | None, list[str]]:
    """Return the ``init_cfg`` of the new backbone, None for random weights, and lines that say so.

    A UserError says that ``arch`` has no published weights, or none for an option that is carried over.
    """
    if not pretrained:
        return None, [f'{source.path} loads no published weights']
    nodes = [node for holder in (source.options, *reversed(source.parents)) for node in _own_nodes(holder, '')]
    named = [str(node.checkpoint or 'weights that the user is to name') for node in nodes]
    old = (*named, cfg.get('load_from') or '')[0]
    if not old:
        return None, [f'{source.path} starts from random weights as before: this config names none']
    published = find_published(arch)
    if published is None:
        raise UserError(
            f'{source.path} starts from {old}, but {arch} has no published weights; train it from random weights with '
            f'--from-scratch, or choose from {", ".join(PUBLISHED)}'
        )
    channels = source.options.get('in_channels') or 3
    norm, conv = (type_name((source.options.get(key) or {}).get('type', '')) for key in ('norm_cfg', 'conv_cfg'))
    faults = {
        f'in_channels={channels}': '3' if channels != 3 else '',
        f'norm_cfg.type={norm!r}': 'BN or SyncBN' if norm and 'BN' not in norm and 'BatchNorm' not in norm else '',
        f'conv_cfg.type={conv!r}': 'plain convolutions' if conv not in ('', 'None', 'Conv', 'Conv2d') else '',
    }
    for option, wanted in faults.items():
        if wanted:
            raise UserError(
                f'{source.path}.{option}, but the published weights of {arch} were trained with {wanted}; train from '
                f'random weights with --from-scratch, or from a config that has {wanted}'
            )
    lines = [f'{source.path} starts from {published.url} (licence {published.licence}), before from {old}']
    if published.recipe == LONG and 'res2net' not in old:
        lines.append(
            f'note: these weights were trained longer ({published.recipe}) than those of a plain ResNet, so not only '
            'the architecture differs'
        )
    return {'type': 'mmres2net.Pretrained', 'checkpoint': published.arch}, lines


def allow_random_plugins(backbone: Cfg, network: nn.Module, source: Source) -> list[str]:
    """Allow plugins of the new ``backbone`` to start from random weights, which are not published; return a line."""
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
        nodes = _own_nodes(holder, '.'.join(steps[:depth]))
        lines += [f'{node.path} {node.checkpoint} -> None: a checkpoint of the old network' for node in nodes]
        own = {key: holder[key] for key in OWN if nodes and key in holder}
        drop_pretrained(own)
        holder.update(own)
    return lines


def _own_nodes(holder: Cfg, path: str) -> list[PretrainedNode]:
    return list(pretrained_nodes({key: holder[key] for key in OWN if key in holder}, path))
