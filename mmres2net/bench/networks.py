"""The backbones that are compared: whose, built how, all with the same weights.

A network is given by its *kind*: ``arch``, the architecture asked for; ``mmdet``, what mmdet's Res2Net makes of it (a
deep stem, an averaging shortcut, and a last split that is pooled only where strided: another function); ``resnet50``,
the yardstick, which for us is a Res2Net of one scale. A *source* is whose implementation it is.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmres2net.bench.worker import MissingError
from mmres2net.models import ALIASES, ARCHS, Res2Net, find_arch
from mmres2net.weights.naming import rename, stem_names

KINDS = ('arch', 'mmdet', 'resnet50')
DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
STAGES = (0, 1, 2, 3)
State = dict[str, Tensor]


def kind_options(kind: str, arch: str) -> dict[str, Any]:
    """Return the keywords of our :class:`Res2Net` for a kind of network."""
    if kind == 'arch':
        return {'arch': arch}
    if kind == 'resnet50':
        return {'depths': (3, 4, 6, 3), 'scales': 1, 'base_width': 64}
    row = find_arch(arch)
    return {
        'depths': row.depths, 'base_width': row.base_width, 'scales': row.scales, 'deep_stem': True, 'avg_down': True,
        'stage_pool': 'mmdet',
    }  # fmt: skip


def ours(kind: str, arch: str) -> nn.Module:
    """Return our network."""
    return Res2Net(**kind_options(kind, arch), out_indices=STAGES)


def timms(kind: str, arch: str) -> nn.Module:
    """Return timm's network, with the outputs of its four stages.

    Raises:
        MissingError: timm has none of this architecture.
    """
    timm = importlib.import_module('timm')
    name = 'resnet50' if kind == 'resnet50' else timm_name(arch)
    if kind == 'mmdet' or not timm.is_model(name):
        raise MissingError(f'timm has no {kind if kind == "mmdet" else arch}')
    return timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4))


def timm_name(arch: str) -> str:
    """Return what timm calls an architecture: its own alias where it has one."""
    official = ALIASES.get(arch, arch)
    aliases = [alias for alias, name in ALIASES.items() if name == official]
    own = [alias for alias in aliases if alias.endswith('d') or alias.startswith('res2next')]
    return own[0] if own else official


def mmpretrains(kind: str, arch: str) -> nn.Module:
    """Return mmpretrain's network.

    Raises:
        MissingError: It is not installed, or has none of this architecture.
    """
    row = find_arch(arch)
    return _of_host('mmpretrain', arch, deep_stem=row.deep_stem, avg_down=row.avg_down, out_indices=STAGES)


def mmdets(kind: str, arch: str) -> nn.Module:
    """Return mmdet's network.

    Raises:
        MissingError: It is not installed, or has none of this depth.
    """
    return _of_host('mmdet', arch, norm_eval=False, frozen_stages=-1, out_indices=STAGES)


def _of_host(host: str, arch: str, **options: Any) -> nn.Module:
    from mmengine.registry import MODELS

    if importlib.util.find_spec(host) is None:
        raise MissingError(f'{host} is not installed')
    row = find_arch(arch)
    plain = replace(row, deep_stem=False, avg_down=False)
    if row.depths not in DEPTHS or plain.cardinality != 1 or plain.se_reduction is not None:
        raise MissingError(f'{host} has no {arch}')
    shape = {'depth': DEPTHS[row.depths], 'scales': row.scales, 'base_width': row.base_width}
    return MODELS.build({'type': f'{host}.Res2Net', **shape, **options})


SOURCES: Mapping[str, Callable[[str, str], nn.Module]] = {
    'ours': ours,
    'timm': timms,
    'mmpretrain': mmpretrains,
    'mmdet': mmdets,
}


def names_in(source: str, kind: str, arch: str) -> Callable[[str], str]:
    """Return the function that turns our name of a parameter into that of ``source``."""
    if kind == 'resnet50' and source == 'timm':
        return lambda name: name.replace('.convs.0.', '.conv2.').replace('.bns.0.', '.bn2.')
    deep = kind == 'mmdet' or (kind == 'arch' and find_arch(arch).deep_stem)
    layers = stem_names(source, deep)
    return lambda name: rename(name, layers)


def seeded_state(shapes: Mapping[str, Tensor]) -> State:
    """Return weights and running statistics by the names of ``shapes``, none of them trivial.

    Each tensor depends on its name and shape alone. Scaled so that activations stay of order one through all blocks. A
    block adds little to its shortcut, as in trained networks; otherwise, with norms on the batch, each would double the
    rounding of the one before, and no two implementations had the same gradients.
    """
    state = {}
    for name, like in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        low, high = _range(name, like)
        random = torch.rand(like.shape, generator=generator) * (high - low) + low
        state[name] = random if like.is_floating_point() else torch.zeros_like(like, device='cpu')
    return state


def _range(name: str, like: Tensor) -> tuple[float, float]:
    if name.endswith('running_var'):
        return 0.5, 1.5
    if like.dim() == 4:
        bound = (4.5 / like[0].numel()) ** 0.5
        return -bound, bound
    if name.endswith('.bn3.weight'):
        return 0.05, 0.25
    return (0.3, 1.0) if name.endswith('weight') else (-0.4, 0.4)


def state_of(kind: str, arch: str) -> State:
    """Return the weights of a kind of network, by our names."""
    with torch.device('meta'):
        shapes = ours(kind, arch).state_dict()
    return seeded_state(shapes)


def build(source: str, kind: str, arch: str) -> nn.Module:
    """Return the network of ``source`` with the weights that all of its kind have, in evaluation mode."""
    network = SOURCES[source](kind, arch)
    name_in = names_in(source, kind, arch)
    network.load_state_dict({name_in(name): tensor for name, tensor in state_of(kind, arch).items()}, strict=True)
    network.eval()  # the hosts' networks return nothing here
    return network


def operations(kind: str, arch: str, shape: tuple[int, ...], *, training: bool = False) -> int:
    """Return the floating-point operations of all convolutions for an input of ``shape`` (N, 3, H, W).

    A multiply-add counts as two; norms, activations and additions are left out, as usual. With ``training`` those of
    the backward pass are counted as well.
    """
    with torch.device('meta'):
        network = ours(kind, arch).eval()
        x = torch.empty(shape)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        outs = network(x)
        if training:
            sum(out.mean() for out in outs).backward()
    return int(counter.get_total_flops())


def families() -> list[str]:
    """Return the architectures that can be compared: four stages behind a stem of stride 4."""
    return [name for name, row in ARCHS.items() if row.family == 'res2net']
