"""Swap the backbone of any config for a Res2Net: a config in, a config out."""

import copy
from fnmatch import fnmatchcase

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from mmres2net.data.layout import walk
from mmres2net.errors import UserError, reason_of
from mmres2net.init_cfg import PretrainedNode, drop_pretrained, pretrained_nodes
from mmres2net.models.arch import ALIASES, ARCHS, find_arch
from mmres2net.models.dla import LEVEL_CHANNELS
from mmres2net.models.res2net import EXPANSION, STAGE_PLANES
from mmres2net.registry import MODELS
from mmres2net.swap.normalization import set_normalization
from mmres2net.swap.sources import Cfg, Source, carry, find_source, type_name
from mmres2net.weights.fetching import LONG, PUBLISHED, find_published, normalization_of

__all__ = ['explain_swap', 'swap_backbone']
KEPT = ('stage', 'stride', 'dilation', 'norm_cfg', 'norm_eval', 'with_cp', 'dcn')
DROPPED = ('type', '_scope_', 'depth', 'style', 'init_cfg', 'pretrained')
HEAD = 'mmres2net.Res2LayerHead'
PLUGINS = '*.after_conv?.*'  # names of a block's plugins
OWN = ('pretrained', 'init_cfg')  # options of a model or backbone by which it loads a checkpoint itself


def swap_backbone(cfg: Config, arch: str, *, pretrained: bool = True) -> Config:
    """Return a copy of ``cfg`` whose ResNet is the Res2Net ``arch``; see :func:`explain_swap`."""
    return explain_swap(cfg, arch, pretrained=pretrained)[0]


def explain_swap(cfg: Config, arch: str, *, pretrained: bool = True) -> tuple[Config, list[str]]:
    """Return a copy of ``cfg`` with its backbone swapped, and a line for each change.

    Freezing, norms, outputs, strides, dilations, deformable convolutions and plugins are carried over. Necks and heads
    stay unchanged, except a shared head that is the old network's last stage. Mean, std and channel order become those
    of the new network. It starts from its published weights if the old one started from weights.

    ``arch`` is a name of :data:`mmres2net.models.ARCHS`, or timm's. Without ``pretrained`` no weights are loaded, for a
    run that loads its own checkpoint or starts from scratch. A UserError says what cannot be carried over.
    """
    try:
        row = find_arch(arch)
    except ValueError as error:
        raise UserError(str(error)) from error
    arch = ALIASES.get(arch, arch)
    cfg = copy.deepcopy(cfg)
    source = find_source(cfg)
    if source.is_ours and ALIASES.get(source.options.get('arch', ''), source.options.get('arch')) == arch:
        raise UserError(f'{source.path} is already {arch}; leave out --backbone, or choose another arch')
    check_channels(source, arch)
    options, lines = carry(source)
    init_cfg, start_lines = new_init_cfg(cfg, source, arch, pretrained)
    kind = 'mmres2net.Res2NetDLA' if row.family == 'dla' else 'mmres2net.Res2Net'
    new = {'type': kind, 'arch': arch, **options, **({'init_cfg': init_cfg} if init_cfg else {})}
    try:
        with torch.device('meta'), DefaultScope.overwrite_default_scope(source.scope or 'mmengine'):
            network = MODELS.build({key: value for key, value in new.items() if key != 'init_cfg'})
    except Exception as error:  # plugins and norms are the libraries', which raise any exception
        raise UserError(f'{arch} cannot replace {source}: {reason_of(error)}') from error
    lines = [f'{source.path} {source.title} -> {kind} {arch}', *lines, *start_lines]
    if init_cfg and any(fnmatchcase(name, PLUGINS) for name in network.state_dict()):
        new['init_cfg'] = {**init_cfg, 'random_ok': [PLUGINS]}
        lines.append(f'{source.path}.plugins start from random weights as before: published weights have none')
    source.parents[-1]['backbone'] = ConfigDict(new)
    lines += [*swap_shared_heads(cfg, arch, init_cfg), *drop_old_checkpoints(cfg, source)]
    normalization = normalization_of(arch)
    lines += set_normalization(cfg, normalization) if normalization else []
    return cfg, lines


def swap_shared_heads(cfg: Config, arch: str, start: Cfg | None) -> list[str]:
    """Replace every shared head that is a stage of a ResNet by that of ``arch``, which starts as ``start`` says."""
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


def check_channels(source: Source, arch: str) -> None:
    """Raise a UserError if necks and heads would not get the channels that they expect."""
    base = source.options.get('base_channels') or 64
    new = stage_channels(arch, base)
    if source.is_ours:
        old = stage_channels(source.options.get('arch', 'res2net50_26w_4s'), base)
    else:
        expansion = source.options.get('expansion') or (1 if source.options.get('depth') in (18, 34) else 4)
        old = tuple(base * expansion * 2**i for i in range(4))
    if old != new:
        others = [name for name in ARCHS if stage_channels(name, base) == old]
        way = f'choose from {", ".join(others)}' if others else 'start from a config with a ResNet of depth 50 or more'
        text = f'{source} returns {str(old)[1:-1]} channels, which necks and heads expect'
        raise UserError(f'{text}, and {arch} returns {str(new)[1:-1]}; {way}, or write a config with other in_channels')


def stage_channels(arch: str, base_channels: int = 64) -> tuple[int, ...]:
    """Return the channels of the stages of ``arch``, an official name or timm's alias."""
    row = find_arch(arch)
    if row.family == 'dla':
        return LEVEL_CHANNELS[2:]
    return tuple(planes * EXPANSION * base_channels // 64 for planes in STAGE_PLANES[: len(row.depths)])


def new_init_cfg(cfg: Config, source: Source, arch: str, pretrained: bool) -> tuple[Cfg | None, list[str]]:
    """Return the ``init_cfg`` of the new backbone, None for random weights, and lines that say so."""
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
    norm, conv = (type_name((source.options.get(key) or {}).get('type', '')) for key in ('norm_cfg', 'conv_cfg'))
    channels, base = source.options.get('in_channels') or 3, source.options.get('base_channels') or 64
    plain = (not norm or 'BN' in norm or 'BatchNorm' in norm) and conv in ('', 'None', 'Conv', 'Conv2d')
    if not plain or (channels, base) != (3, 64):
        has = f'norm_cfg.type={norm!r}, conv_cfg.type={conv!r}, in_channels={channels}, base_channels={base}'
        what = f'{source.path} has {has}; published weights are of batch norms, plain convolutions, 3 and 64 channels'
        raise UserError(f'{what}: train with --from-scratch')
    lines = [f'{source.path} starts from {published.url} (licence {published.licence}), before from {old}']
    if published.recipe == LONG and 'res2net' not in old:
        lines.append(f'note: these weights were trained longer ({published.recipe}): not only the architecture differs')
    return {'type': 'mmres2net.Pretrained', 'checkpoint': published.arch}, lines


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
