"""The pairs of the shipped configs: each Res2Net config and the baseline that it is compared with."""

import re

from mmres2net.paths import list_configs

_IMAGENET = {
    'res2net50': 'resnet50',
    'res2net101': 'resnet101',
    'res2next50': 'resnext50',
    'se_res2net50': 'senet50',
    'res2net_dla60': 'dla60',
    'res2next_dla60': 'dla60x',
}


def baseline_of(name: str) -> str | None:
    """Return the baseline of a config, or None where it is itself one."""
    folder, _, stem = name.removesuffix('.py').rpartition('/')
    if folder == 'imagenet' and '_299' not in stem:
        network = re.sub(r'_\d+w_\ds|_4s|_smooth', '', stem)
        stem = _IMAGENET.get(network, network) + ('_smooth' if 'smooth' in stem else '')
    elif folder == 'cifar100' and stem.startswith(('resnext29', 'res2next29', 'se_res')):
        stem = 'resnext29_8c64w'
    elif stem.startswith('coarse_mini'):
        stem = 'coarse_mini_resnext20'
    else:
        stem = re.sub(r'r2n(50|101)(_v1b|_48w2s|_18w6s|_14w8s)?', r'r\1', stem)
    baseline = f'{folder}/{stem}.py'.removeprefix('/')
    return None if baseline == name else baseline


PAIRS = [(name, baseline) for name in list_configs() if (baseline := baseline_of(name))]
