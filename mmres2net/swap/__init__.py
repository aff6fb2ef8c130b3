"""Swap the backbone of any config for a Res2Net: a config in, a config out."""

import copy

from mmengine.config import Config

from mmres2net.errors import UserError
from mmres2net.models.arch import ALIASES, ARCHS, find_arch
from mmres2net.swap import parts
from mmres2net.swap.normalization import set_normalization
from mmres2net.swap.sources import Source, carry, find_source
from mmres2net.weights.fetching import normalization_of

__all__ = ['explain_swap', 'swap_backbone']


def swap_backbone(cfg: Config, arch: str, *, pretrained: bool = True) -> Config:
    """Return a copy of ``cfg`` whose ResNet is the Res2Net ``arch``, with all that has to change with it.

    See :func:`explain_swap`, which also returns what it changed.
    """
    return explain_swap(cfg, arch, pretrained=pretrained)[0]


def explain_swap(cfg: Config, arch: str, *, pretrained: bool = True) -> tuple[Config, list[str]]:
    """Return a copy of ``cfg`` with its backbone swapped, and a line for each change.

    Freezing, norms, outputs, strides, dilations, deformable convolutions and plugins are carried over. Necks and heads
    stay unchanged, except a shared head that is the old network's last stage. Mean, std and channel order become those
    of the new network. It starts from its published weights if the old one started from weights.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain; it stays unchanged.
        arch: A name of :data:`mmres2net.models.ARCHS`, or timm's name of the same network.
        pretrained: False loads no weights, for a run that loads its own checkpoint or starts from scratch; frozen
            layers stay frozen.

    Raises:
        UserError: Something in the config cannot be carried over; the message says what, why and what to do.
    """
    try:
        row = find_arch(arch)
    except ValueError as error:
        raise UserError(str(error)) from error
    arch = ALIASES.get(arch, arch)
    cfg = copy.deepcopy(cfg)
    source = find_source(cfg)
    _check_pair(source, arch)
    head_lines = parts.fit_heads(source, arch)
    options, lines = carry(source, row)
    init_cfg, start_lines = parts.new_init_cfg(cfg, source, arch, pretrained)
    kind = 'mmres2net.Res2NetDLA' if row.family == 'dla' else 'mmres2net.Res2Net'
    new = {'type': kind, 'arch': arch, **options, **({'init_cfg': init_cfg} if init_cfg else {})}
    network = parts.build_on_meta(new, source)
    parts.check_parameter_groups(cfg, network, row)
    lines = [f'{source.path} {source.title} -> {kind} {arch}', *lines, *start_lines]
    lines += parts.allow_random_plugins(new, network, source)
    source.replace(new)
    lines += [*parts.swap_shared_heads(cfg, arch, init_cfg), *head_lines, *parts.drop_old_checkpoints(cfg, source)]
    normalization = normalization_of(arch)
    lines += set_normalization(cfg, normalization) if normalization else []
    own = cfg.get('custom_imports') or {'imports': []}
    imports = [own['imports']] if isinstance(own['imports'], str) else list(own['imports'])
    if 'mmres2net.models' not in imports:
        cfg.custom_imports = {'allow_failed_imports': False, **own, 'imports': [*imports, 'mmres2net.models']}
        lines.append('custom_imports + mmres2net.models')
    return cfg, lines


def _check_pair(source: Source, arch: str) -> None:
    if source.is_ours and ALIASES.get(source.options.get('arch', ''), source.options.get('arch')) == arch:
        raise UserError(f'{source.path} is already {arch}; leave out --backbone, or choose another arch')
    small = [name for name, row in ARCHS.items() if row.family == 'cifar']
    if arch in small and not source.is_cifar:
        what = f'{arch} is made for images of 32 pixels, {source} is not'
        raise UserError(f'{what}; choose an arch of the ImageNet families, e.g. res2net50_26w_4s')
    if source.is_cifar and arch not in small:
        what = f'{source} is made for images of 32 pixels, of which {arch} would leave one'
        raise UserError(f'{what}; choose from {", ".join(small)}')
