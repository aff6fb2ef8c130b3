"""Checks of a swap before anything runs: its options, its weights, and settings that name parameters."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmres2net.errors import UserError, reason_of
from mmres2net.models.arch import Arch
from mmres2net.registry import MODELS
from mmres2net.swap.sources import Cfg, Source, type_name


def build_on_meta(backbone: Cfg, source: Source) -> nn.Module:
    """Build the new backbone of ``source`` from its config, without memory for its parameters.

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
    except Exception as error:  # plugins and norms are the libraries', which raise any exception
        raise UserError(f'{arch} cannot replace {source.path} ({source.title}): {reason_of(error)}') from error
    for name, module in network.named_modules():
        groups = getattr(module, 'deform_groups', 1)
        if getattr(module, 'in_channels', groups) % groups:
            raise UserError(
                f'{source.path}.dcn.deform_groups={groups} does not divide the {module.in_channels} channels of a '
                f'split of {arch} ({name}); 1 does'
            )
    return network


def _check_weights_fit(backbone: Cfg, source: Source) -> None:
    """Refuse options that the published weights were not trained with: they would load, and be meaningless."""
    norm, conv = (type_name((backbone.get(key) or {}).get('type', '')) for key in ('norm_cfg', 'conv_cfg'))
    faults = {
        'in_channels': (backbone.get('in_channels', 3), 3, backbone.get('in_channels', 3) == 3),
        'norm_cfg.type': (norm, 'BN or SyncBN', any(part in norm for part in ('BN', 'BatchNorm')) or not norm),
        'conv_cfg.type': (conv, 'plain convolutions', conv in ('', 'None', 'Conv', 'Conv2d')),
    }
    for key, (value, wanted, fits) in faults.items():
        if not fits:
            raise UserError(
                f'{source.path}.{key}={value!r}, but the published weights of {backbone["arch"]} were trained with '
                f'{wanted}; train from random weights with --from-scratch, or from a config that has {wanted}'
            )


def check_parameter_groups(cfg: Config, network: nn.Module, row: Arch) -> None:
    """Check that each key of ``paramwise_cfg.custom_keys`` that names a part of the backbone also fits the new one.

    Raises:
        UserError: One matches nothing, or another kind of parameter.
    """
    keys = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [f'backbone.{name}' for name, _ in network.named_parameters()]
    for key in keys:
        where = f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}]'
        inside = 'backbone.' + key.rpartition('backbone.')[2] if 'backbone.' in key else ''
        if inside and not any(inside in name for name in names):
            starts = ', '.join(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
            raise UserError(f'{where} matches no parameter of the new backbone; its names begin with {starts}')
        if row.avg_down and key.endswith('downsample.1'):
            raise UserError(
                f"{where} means the shortcut's norm, which is downsample.2 in this arch (downsample.1 is its "
                'convolution); change the key in a copy of the config, or choose an arch that is not v1b'
            )
