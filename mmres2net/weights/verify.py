"""Features of a network in another library's own code against ours, with the same weights, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.models.arch import Arch
from mmres2net.models.dla import Res2NetDLA
from mmres2net.models.res2net import Res2Net
from mmres2net.weights.convert import DEPTHS, check_target, network_for
from mmres2net.weights.fetching import PUBLISHED
from mmres2net.weights.naming import Family, Recognised

TOLERANCE = 1e-10  # of the largest feature
SIZE = (64, 96)  # multiples of 32, as the DLA needs
TIMM_DLA = {'dla60': 'dla60', 'dla60x': 'dla60x'} | {
    arch: str(entry.timm) for arch, entry in PUBLISHED.items() if '_dla60' in arch
}


@dataclass(frozen=True)
class Comparison:
    """The difference between two networks with the same weights.

    Args:
        library: The library whose code was compared with ours.
        stage_pool: The option with which ours computes that library's function.
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


def verify(ours: Mapping[str, Tensor], recognised: Recognised, target: Family) -> Iterator[Comparison]:
    """Compare the code of the source's and the target's library with ours, on the converted weights.

    Raises:
        UserError: A library is missing, or features differ.
    """
    families: list[Family] = [f for f in dict.fromkeys((recognised.family, target)) if f != 'mmres2net']
    for family in families or [target]:
        check_comparable(recognised, family)
    for family in families:
        found = compare(ours, recognised, family)
        if not found.equal:
            raise UserError(f'the features differ: {found}; nothing was written')
        yield found


def compare(ours: Mapping[str, Tensor], recognised: Recognised, family: Family, *, seed: int = 0) -> Comparison:
    """Compare the network of ``family`` with ours on a random image of 64 by 96.

    The official code cannot be installed as a library; timm, which has its names and function, takes its place.

    Args:
        ours: A network under our names.
        recognised: What it is; its ``stage_pool`` is replaced by that of ``family``.
        family: The library to compare with.
        seed: Of the image.

    Raises:
        UserError: The library is not installed or does not have the network, or the network is not complete.
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


def check_comparable(recognised: Recognised, family: Family) -> None:
    """Check that a comparison is possible, before any work.

    Raises:
        UserError: It is not.
    """
    if family == 'mmres2net':
        raise UserError(
            "--verify compares with another library's code: leave it out, or convert --to another library that has "
            'the network'
        )
    check_target(recognised, family)
    if len(recognised.row.depths) < 4:
        raise UserError(f'--verify needs a complete network; the file has {len(recognised.row.depths)} of 4 stages')
    if recognised.row.family == 'dla' and recognised.arch not in TIMM_DLA:
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
        depth=DEPTHS[row.depths],
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
        return build(TIMM_DLA[str(recognised.arch)])
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
