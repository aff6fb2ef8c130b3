"""Checks of a swap before anything runs: options, weights, and settings that name parameters."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmres2net.errors import UserError
from mmres2net.models.arch import Arch
from mmres2net.registry import MODELS
from mmres2net.swap.sources import Cfg, Source


def trial(backbone: Cfg, source: Source) -> nn.Module:
    """Return the new backbone of ``source`` by its config, without memory for its parameters.

    Raises:
        UserError: An option does not fit the network, or the published weights do not fit an option.
    """
    arch = backbone['arch']
    if 'init_cfg' in backbone:
        _check_weights_fit(backbone, source)
    scope = source.scope or 'mmengine'
    try:
        with torch.device('meta'), DefaultScope.overwrite_default_scope(scope):
            network = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg'})
    except Exception as error:  # plugins and norms are the hosts': they raise what they like
        raise UserError(f'{arch} cannot take the place of {source.path} ({source.title}): {error}') from error
    for name, module in network.named_modules():
        groups = getattr(module, 'deform_groups', 1)
        if getattr(module, 'in_channels', groups) % groups:
            raise UserError(
                f'{source.path}.dcn.deform_groups={groups} does not divide the {module.in_channels} channels of a '
                f'split of {arch} ({name}); 1 does'
            )
    return network


def _check_weights_fit(backbone: Cfg, source: Source) -> None:
    """Refuse what the published weights were not trained with: they would load, and mean nothing."""
    norm, conv = ((backbone.get(key) or {}).get('type', '') for key in ('norm_cfg', 'conv_cfg'))
    faults = {
        'in_channels': (backbone.get('in_channels', 3), 3, backbone.get('in_channels', 3) == 3),
        'norm_cfg.type': (norm, 'BN or SyncBN', not norm or 'BN' in norm),
        'conv_cfg.type': (conv, 'plain convolutions', conv in ('', 'Conv', 'Conv2d')),
    }
    for key, (value, wanted, fits) in faults.items():
        if not fits:
            raise UserError(
                f'{source.path}.{key}={value!r}, but the published weights of {backbone["arch"]} were trained with '
                f'{wanted}; train from random weights with --from-scratch, or from a config that has {wanted}'
            )


def check_parameter_groups(cfg: Config, network: nn.Module, row: Arch) -> None:
    """Check that ``paramwise_cfg.custom_keys`` which name parts of the old backbone name the same of the new one.

    Raises:
        UserError: One names nothing, or another kind of parameter.
    """
    keys = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [f'backbone.{name}' for name, _ in network.named_parameters()]
    for key in keys:
        where = f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}]'
        inside = 'backbone.' + key.rpartition('backbone.')[2] if 'backbone.' in key else ''
        if inside and not any(inside in name for name in names):
            raise UserError(f'{where} names no parameter of the new backbone; its names begin with {_heads(names)}')
        if row.avg_down and key.endswith('downsample.1'):
            raise UserError(
                f"{where} means a shortcut's norm, which is downsample.2 in this arch, and 1 is its convolution; "
                'change the key in a copy of the config, or choose an arch that is not v1b'
            )


def _heads(names: list[str]) -> str:
    return ', '.join(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
