"""Features of a network in another library's own code against ours, with the same weights, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.models.arch import Arch
from mmres2net.models.dla import Res2NetDLA
from mmres2net.models.res2net import Res2Net
from mmres2net.weights.families import Recognised
from mmres2net.weights.targets import Target, check_target, network_for

TOLERANCE = 1e-10  # of the largest feature
SIZE = (64, 96)  # what the DLA's 32 divides
_TIMM_DLA = {
    'dla60': 'dla60',
    'dla60x': 'dla60x',
    'res2net_dla60_4s': 'dla60_res2net',
    'res2next_dla60_4s': 'dla60_res2next',
}
_DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclass(frozen=True)
class Comparison:
    """How far two networks with the same weights are from each other.

    Args:
        library: Whose code was compared with ours.
        stage_pool: With which option ours computes that library's function.
        difference: The largest difference of a feature.
        scale: The largest feature.
    """

    library: str
    stage_pool: str
    difference: float
    scale: float

    @property
    def equal(self) -> bool:
        """Whether it is the same function, up to rounding."""
        return self.difference <= TOLERANCE * max(self.scale, 1.0)

    def __str__(self) -> str:
        option = f' with stage_pool={self.stage_pool!r}' if self.stage_pool == 'mmdet' else ''
        return (
            f'{self.library} and mmres2net{option}, float64, 4 stages: largest difference {self.difference:.3g}, '
            f'largest feature {self.scale:.3g}'
        )


def compare(ours: Mapping[str, Tensor], recognised: Recognised, family: Target, *, seed: int = 0) -> Comparison:
    """Return how far the network of ``family`` is from ours, on a random image of 64 by 96.

    The official code is not a library that can be installed; timm, which has its names and function, stands for it.

    Args:
        ours: A network by our names.
        recognised: What it is; its ``stage_pool`` is not used, but that by which ``family`` computes.
        family: Whose code to compare with.
        seed: Of the image.

    Raises:
        UserError: The library is not installed, or does not have the network, or the network is not whole.
    """
    check_comparable(recognised, family)
    stage_pool = 'mmdet' if family == 'mmdet' else 'official'
    library = 'timm' if family == 'official' else family
    theirs, _ = network_for(family if family != 'official' else 'timm', ours, recognised.row)
    pair = (_build_ours(recognised, stage_pool), ours), (_build_theirs(recognised, library), theirs)
    image = torch.randn(1, recognised.in_channels, *SIZE, generator=torch.Generator().manual_seed(seed)).double()
    outs, expected = (_features(_loaded(model, weights), image) for model, weights in pair)
    return Comparison(
        library='timm (for the official code)' if family == 'official' else library,
        stage_pool=stage_pool,
        difference=max((a - b).abs().max().item() for a, b in zip(outs, expected, strict=True)),
        scale=max(b.abs().max().item() for b in expected),
    )


def check_comparable(recognised: Recognised, family: Target) -> None:
    """Check that there is something to compare with, before any work.

    Raises:
        UserError: There is not.
    """
    if family == 'mmres2net':
        raise UserError(
            "--verify compares with another library's code, and mmres2net is none: leave it out, or convert --to a "
            'library that has the network'
        )
    check_target(recognised, family)
    if len(recognised.row.depths) < 4:
        raise UserError(f'--verify needs a whole network; the file has {len(recognised.row.depths)} of 4 stages')
    if recognised.row.family == 'dla' and recognised.arch not in _TIMM_DLA:
        raise UserError('--verify needs a network that timm knows by name; leave --verify out')
    _library('timm' if family == 'official' else family)


def _library(name: str) -> Any:
    module = name if name == 'timm' else f'{name}.models.backbones'
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f'--verify needs {name}, which cannot be imported here ({error}): install it, or leave --verify out'
        ) from error


def _build_ours(recognised: Recognised, stage_pool: str) -> nn.Module:
    if recognised.row.family == 'dla':
        return Res2NetDLA(**recognised.options)
    return Res2Net(**{**recognised.options, 'stage_pool': stage_pool})


def _build_theirs(recognised: Recognised, library: str) -> nn.Module:
    row, host = recognised.row, _library(library)
    if library == 'timm':
        return _build_timm(host, recognised)
    stem = {} if library == 'mmdet' else {'deep_stem': row.deep_stem, 'avg_down': row.avg_down}
    return host.Res2Net(
        depth=_DEPTHS[row.depths],
        base_width=row.base_width,
        scales=row.scales,
        in_channels=recognised.in_channels,
        out_indices=(0, 1, 2, 3),
        **stem,
    )


def _build_timm(timm: Any, recognised: Recognised) -> nn.Module:
    build = partial(timm.create_model, pretrained=False, num_classes=0, in_chans=recognised.in_channels)
    row: Arch = recognised.row
    if row.family == 'dla':
        return build(_TIMM_DLA[str(recognised.arch)])
    block: dict[str, Any] = {'scale': row.scales}
    if row.se_reduction:
        block['attn_layer'] = importlib.import_module('timm.layers').SEModule
    stem = {'stem_width': 32, 'stem_type': 'deep'} if row.deep_stem else {}
    return build(
        'res2net50_26w_4s',
        layers=row.depths,
        base_width=row.base_width,
        cardinality=row.cardinality,
        avg_down=row.avg_down,
        block_args=block,
        **stem,
    )


def _loaded(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    fault = model.load_state_dict(dict(weights), strict=False)
    if fault.missing_keys or fault.unexpected_keys:
        raise UserError(
            f'--verify cannot load the weights into {type(model).__module__}: missing {fault.missing_keys[:4]}, '
            f'unexpected {fault.unexpected_keys[:4]}; leave --verify out if the network is changed on purpose'
        )
    return model.double()


def _features(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the output of each of the four stages, whatever the model itself returns."""
    found: list[Tensor] = []
    kind = 'level{}' if hasattr(model, 'level2') else 'layer{}'
    first = 2 if hasattr(model, 'level2') else 1
    for i in range(4):
        stage = model.get_submodule(kind.format(first + i))
        stage.register_forward_hook(lambda _, __, output: found.append(output))
    model.eval()  # not chained: the hosts' eval() returns nothing
    with torch.inference_mode():
        model(image)
    return found
