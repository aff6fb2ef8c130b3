"""What a swap means for the rest of a config: initial weights, heads, and settings that name parameters."""

import copy
from fnmatch import fnmatchcase

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from mmres2net.data.layout import walk
from mmres2net.errors import UserError, reason_of
from mmres2net.init_cfg import PretrainedNode, drop_pretrained, pretrained_nodes
from mmres2net.models.arch import ARCHS, Arch, find_arch
from mmres2net.models.dla import LEVEL_CHANNELS
from mmres2net.models.res2net import EXPANSION, STAGE_PLANES
from mmres2net.registry import MODELS
from mmres2net.swap.sources import Cfg, Source, type_name
from mmres2net.weights.fetching import LONG, PUBLISHED, find_published

KEPT = ('stage', 'stride', 'dilation', 'norm_cfg', 'norm_eval', 'with_cp', 'dcn')
DROPPED = ('type', '_scope_', 'depth', 'style', 'init_cfg', 'pretrained')
HEAD = 'mmres2net.Res2LayerHead'
PLUGINS = '*.after_conv?.*'  # names of a block's plugins
OWN = ('pretrained', 'init_cfg')  # options of a model or backbone by which it loads a checkpoint itself


def build_on_meta(backbone: Cfg, source: Source) -> nn.Module:
    """Return the new backbone of ``source``, built without memory; a UserError if an option does not fit it."""
    arch = backbone['arch']
    scope = source.scope or 'mmengine'
    try:
        with torch.device('meta'), DefaultScope.overwrite_default_scope(scope):
            network = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg'})
    except Exception as error:  # plugins and norms are the libraries', which raise any exception
        raise UserError(f'{arch} cannot replace {source}: {reason_of(error)}') from error
    for name, module in network.named_modules():
        groups = getattr(module, 'deform_groups', 1)
        if getattr(module, 'in_channels', groups) % groups:
            what = f'{source.path}.dcn.deform_groups={groups} does not divide the {module.in_channels} channels'
            raise UserError(f'{what} of a split of {arch} ({name}); 1 does')
    return network


def check_parameter_groups(cfg: Config, network: nn.Module, row: Arch) -> None:
    """Raise a UserError if a key of ``paramwise_cfg.custom_keys`` named a part of the old backbone only."""
    keys = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [f'backbone.{name}' for name, _ in network.named_parameters()]
    for key in keys:
        where = f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}]'
        inside = 'backbone.' + key.rpartition('backbone.')[2]
        if 'backbone.' in key and not any(inside in name for name in names):
            starts = ', '.join(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
            raise UserError(f'{where} matches no parameter of the new backbone; its names begin with {starts}')
        if row.avg_down and key.endswith('downsample.1'):
            what = f"{where} means the shortcut's norm, which is downsample.2 in this arch"
            raise UserError(f'{what}; change the key in a copy of the config, or choose an arch that is not v1b')


def swap_shared_heads(cfg: Config, arch: str, start: Cfg | None) -> list[str]:
    """Replace every shared head that is a stage of a ResNet by the stage of ``arch``; return a line for each.

    ``start`` is the ``init_cfg`` of the new backbone. A UserError names options that our head does not have.
    """
    lines = []
    for path, holder in list(walk(cfg.model, 'model')):
        old: Cfg = holder.get('shared_head') or {}
        name = type_name(old.get('type'))
        if name not in ('ResLayer', 'Res2LayerHead'):
            continue
        kept = {key for key in old if key != 'init_cfg'} if name == 'Res2LayerHead' else {*KEPT}
        unknown = [key for key in old if key not in (*kept, *DROPPED) and old[key] is not None]
        if unknown:
            what = f'{path}.shared_head has {", ".join(unknown)}, which {HEAD} does not have'
            raise UserError(f'{what}; remove it from a copy')
        new = {key: copy.deepcopy(value) for key, value in old.items() if key in kept and value is not None}
        new |= {'type': HEAD, 'arch': arch, **({'init_cfg': start} if start else {})}
        holder['shared_head'] = ConfigDict(new)
        weights = 'weights of the same file' if start else 'random weights'
        lines.append(f'{path}.shared_head {name} -> {HEAD} {arch}, {weights}')
    return lines


def fit_heads(source: Source, arch: str) -> list[str]:
    """Check that necks and heads get the channels that they expect; return a line for what had to change.

    Only the linear head after a CIFAR network changes: that has three stages, a ResNet has four.
    """
    new = stage_channels(arch)
    old = stage_channels(source.options.get('arch', 'res2net50_26w_4s')) if source.is_ours else source.channels()
    if source.is_cifar:
        head, neck = (source.parents[-1].get(part) or {} for part in ('head', 'neck'))
        if head.get('in_channels') != old[-1] or type_name(neck.get('type')) != 'GlobalAveragePooling':
            text = f'{source} returns {old[-1]} channels and {arch} {new[-1]}'
            raise UserError(f'{text}; the swap can adapt only a pooled linear head with in_channels={old[-1]}')
        head['in_channels'] = new[-1]
        path = source.path.removesuffix('backbone') + 'head.in_channels'
        return [f'{path} {old[-1]} -> {new[-1]}: the last of three stages replaces the fourth']
    if old != new:
        others = [name for name in ARCHS if stage_channels(name) == old]
        way = f'choose from {", ".join(others)}' if others else 'start from a config with a ResNet of depth 50 or more'
        text = f'{source} returns {str(old)[1:-1]} channels, which necks and heads expect'
        raise UserError(f'{text}, and {arch} returns {str(new)[1:-1]}; {way}, or write a config with other in_channels')
    return []


def stage_channels(arch: str) -> tuple[int, ...]:
    """Return the channels of the stages of ``arch``, an official name or timm's alias."""
    row = find_arch(arch)
    if row.family == 'dla':
        return LEVEL_CHANNELS[2:]
    return tuple(planes * EXPANSION for planes in STAGE_PLANES[: len(row.depths)])


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
        what = f'{source.path} starts from {old}, but {arch} has no published weights'
        raise UserError(f'{what}; train it with --from-scratch, or choose from {", ".join(PUBLISHED)}')
    channels = source.options.get('in_channels') or 3
    norm, conv = (type_name((source.options.get(key) or {}).get('type', '')) for key in ('norm_cfg', 'conv_cfg'))
    faults = {
        f'in_channels={channels}': '3' if channels != 3 else '',
        f'norm_cfg.type={norm!r}': 'BN or SyncBN' if norm and 'BN' not in norm and 'BatchNorm' not in norm else '',
        f'conv_cfg.type={conv!r}': 'plain convolutions' if conv not in ('', 'None', 'Conv', 'Conv2d') else '',
    }
    for option, wanted in faults.items():
        if wanted:
            what = f'{source.path}.{option}, but the published weights of {arch} were trained with {wanted}'
            raise UserError(f'{what}; train with --from-scratch, or from a config that has {wanted}')
    lines = [f'{source.path} starts from {published.url} (licence {published.licence}), before from {old}']
    if published.recipe == LONG and 'res2net' not in old:
        what = f'note: these weights were trained longer ({published.recipe}) than those of a plain ResNet'
        lines.append(f'{what}, so not only the architecture differs')
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
