"""Features of a network in another library's own code against ours, with the same weights, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmres2net.errors import UserError
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
    """The difference between the networks of a library and of this project with the same weights."""

    library: str
    stage_pool: str  # the option with which ours computes that library's function
    difference: float  # the largest of a feature
    scale: float  # the largest feature

    @property
    def equal(self) -> bool:
        """Whether both compute the same function, up to rounding."""
        return self.difference <= TOLERANCE * max(self.scale, 1.0)

    def __str__(self) -> str:
        option = f' with stage_pool={self.stage_pool!r}' if self.stage_pool == 'mmdet' else ''
        return (
            f'{self.library} and mmres2net{option}, float64, 4 stages: largest difference {self.difference:.3g}, '
            f'largest feature {self.scale:.3g}'
        )


def verify(ours: Mapping[str, Tensor], recognised: Recognised, target: Family) -> Iterator[Comparison]:
    """Compare the code of the source's and the target's library with ours; a UserError if features differ."""
    families: list[Family] = [family for family in dict.fromkeys((recognised.family, target)) if family != 'mmres2net']
    for family in families or [target]:
        check_comparable(recognised, family)
    for family in families:
        found = compare(ours, recognised, family)
        if not found.equal:
            raise UserError(f'the features differ: {found}; nothing was written')
        yield found


def compare(ours: Mapping[str, Tensor], recognised: Recognised, family: Family, *, seed: int = 0) -> Comparison:
    """Compare the network of ``family`` with ours on a random image of 64 by 96.

    The official code cannot be installed as a library; timm, which has its names and function, takes its place. The
    ``stage_pool`` is that of ``family``. A UserError says that the library or the network in it is missing.
    """
    check_comparable(recognised, family)
    stage_pool = 'mmdet' if family == 'mmdet' else 'official'
    library: Family = 'timm' if family == 'official' else family
    theirs, _ = network_for(library, ours, recognised.row)
    is_dla, options = recognised.row.family == 'dla', recognised.options
    network = Res2NetDLA(**options) if is_dla else Res2Net(**{**options, 'stage_pool': stage_pool})
    build = _build_timm if library == 'timm' else _build_mmlab
    image = torch.randn(1, recognised.in_channels, *SIZE, generator=torch.Generator().manual_seed(seed)).double()
    outs, expected = _features(network, ours, image), _features(build(recognised, library), theirs, image)
    return Comparison(
        library='timm (for the official code)' if family == 'official' else library,
        stage_pool=stage_pool,
        difference=max((a - b).abs().max().item() for a, b in zip(outs, expected, strict=True)),
        scale=max(b.abs().max().item() for b in expected),
    )


def check_comparable(recognised: Recognised, family: Family) -> None:
    """Raise a UserError if no comparison is possible, before any work."""
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
    _import('timm' if family in ('official', 'timm') else f'{family}.models.backbones')


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f'--verify needs {module.split(".")[0]}, which cannot be imported here ({error}): install it, or leave '
            '--verify out'
        ) from error


def _build_mmlab(recognised: Recognised, library: str) -> nn.Module:
    row = recognised.row
    stem = {} if library == 'mmdet' else {'deep_stem': row.deep_stem, 'avg_down': row.avg_down}
    return _import(f'{library}.models.backbones').Res2Net(
        depth=DEPTHS[row.depths],
        base_width=row.base_width,
        scales=row.scales,
        in_channels=recognised.in_channels,
        out_indices=(0, 1, 2, 3),
        **stem,
    )


def _build_timm(recognised: Recognised, library: str) -> nn.Module:
    row = recognised.row
    options: dict[str, Any] = {'pretrained': False, 'num_classes': 0, 'in_chans': recognised.in_channels}
    if row.family == 'dla':
        return _import(library).create_model(TIMM_DLA[str(recognised.arch)], **options)
    block: dict[str, Any] = {'scale': row.scales}
    if row.se_reduction:
        block['attn_layer'] = _import('timm.layers').SEModule
    options |= {'stem_width': 32, 'stem_type': 'deep'} if row.deep_stem else {}
    shape = {'layers': row.depths, 'base_width': row.base_width, 'cardinality': row.cardinality}
    model = 'res2net50_26w_4s'
    return _import(library).create_model(model, **options, **shape, avg_down=row.avg_down, block_args=block)


def _features(model: nn.Module, weights: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
    """Return the output of each of the four stages with these weights, whatever the model itself returns."""
    fault = model.load_state_dict(dict(weights), strict=False)
    if fault.missing_keys or fault.unexpected_keys:
        raise UserError(
            f'--verify cannot load the weights into {type(model).__module__}: missing {fault.missing_keys[:4]}, '
            f'unexpected {fault.unexpected_keys[:4]}; leave --verify out if the network is changed on purpose'
        )
    found: list[Tensor] = []
    for i in range(4):
        stage = model.get_submodule(f'level{i + 2}' if hasattr(model, 'level2') else f'layer{i + 1}')
        stage.register_forward_hook(lambda _, __, output: found.append(output))
    model.double().eval()  # not chained: eval() of OpenMMLab's models returns nothing
    with torch.inference_mode():
        model(image)
    return found
