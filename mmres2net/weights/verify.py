"""Features of a network in another library's own code against ours, with the same weights, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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


class Comparison(NamedTuple):
    """The network of a library and ours, with the same weights."""

    equal: bool  # both compute the same function, up to rounding
    text: str  # which were compared, and by how much they differ


def verify(ours: Mapping[str, Tensor], recognised: Recognised, target: Family) -> Iterator[str]:
    """Compare the code of the source's and the target's library with ours; a UserError if features differ."""
    families: list[Family] = [family for family in dict.fromkeys((recognised.family, target)) if family != 'mmres2net']
    if not families:
        what = "--verify compares with another library's code"
        raise UserError(f'{what}: leave it out, or convert --to another library that has the network')
    for family in families:
        check_comparable(recognised, family)
    for family in families:
        found = compare(ours, recognised, family)
        if not found.equal:
            raise UserError(f'the features differ: {found.text}; nothing was written')
        yield found.text


def check_comparable(recognised: Recognised, family: Family) -> None:
    """Raise a UserError if no comparison with ``family`` is possible, before any work."""
    check_target(recognised, family)
    if len(recognised.row.depths) < 4:
        raise UserError(f'--verify needs a complete network; the file has {len(recognised.row.depths)} of 4 stages')
    if recognised.row.family == 'dla' and recognised.arch not in TIMM_DLA:
        raise UserError('--verify needs a network that timm knows by name; leave --verify out')
    module = 'timm' if family in ('official', 'timm') else f'{family}.models.backbones'
    try:
        importlib.import_module(module)
    except ImportError as error:
        what = f'--verify needs {module.split(".")[0]}, which cannot be imported here ({error})'
        raise UserError(f'{what}: install it, or leave --verify out') from error


def compare(ours: Mapping[str, Tensor], recognised: Recognised, family: Family) -> Comparison:
    """Compare the network of ``family`` with ours on a random image of 64 by 96.

    The official code cannot be installed as a library; timm, which has its names and function, takes its place. The
    ``stage_pool`` is that of ``family``. A UserError says that the weights do not fit the library's network.
    """
    stage_pool = 'mmdet' if family == 'mmdet' else 'official'
    library: Family = 'timm' if family == 'official' else family
    theirs, _ = network_for(library, ours, recognised.row)
    is_dla, options = recognised.row.family == 'dla', recognised.options
    network = Res2NetDLA(**options) if is_dla else Res2Net(**{**options, 'stage_pool': stage_pool})
    model = _timm_model(recognised) if library == 'timm' else _mmlab_model(recognised, library)
    image = torch.randn(1, recognised.in_channels, *SIZE, generator=torch.Generator().manual_seed(0)).double()
    outs, expected = _features(network, ours, image), _features(model, theirs, image)
    difference = max((a - b).abs().max().item() for a, b in zip(outs, expected, strict=True))
    scale = max(b.abs().max().item() for b in expected)
    who = 'timm (for the official code)' if family == 'official' else library
    option = " with stage_pool='mmdet'" if family == 'mmdet' else ''
    text = f'{who} and mmres2net{option}, float64, 4 stages: largest difference {difference:.3g}, '
    return Comparison(difference <= TOLERANCE * max(scale, 1.0), f'{text}largest feature {scale:.3g}')


def _mmlab_model(recognised: Recognised, library: str) -> nn.Module:
    row, depth = recognised.row, DEPTHS[recognised.row.depths]
    options: dict[str, Any] = {'base_width': row.base_width, 'scales': row.scales, 'out_indices': (0, 1, 2, 3)}
    options |= {} if library == 'mmdet' else {'deep_stem': row.deep_stem, 'avg_down': row.avg_down}
    backbones = importlib.import_module(f'{library}.models.backbones')
    return backbones.Res2Net(depth=depth, in_channels=recognised.in_channels, **options)


def _timm_model(recognised: Recognised) -> nn.Module:
    import timm
    from timm.layers import SEModule

    row = recognised.row
    options: dict[str, Any] = {'pretrained': False, 'num_classes': 0, 'in_chans': recognised.in_channels}
    if row.family == 'dla':
        return timm.create_model(TIMM_DLA[str(recognised.arch)], **options)
    options |= {'block_args': {'scale': row.scales, **({'attn_layer': SEModule} if row.se_reduction else {})}}
    options |= {'layers': row.depths, 'base_width': row.base_width, 'cardinality': row.cardinality}
    options |= {'stem_width': 32, 'stem_type': 'deep'} if row.deep_stem else {}
    return timm.create_model('res2net50_26w_4s', avg_down=row.avg_down, **options)


def _features(model: nn.Module, weights: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
    """Return the output of each of the four stages with these weights, whatever the model itself returns."""
    fault = model.load_state_dict(dict(weights), strict=False)
    if fault.missing_keys or fault.unexpected_keys:
        what = f'missing {fault.missing_keys[:4]}, unexpected {fault.unexpected_keys[:4]}'
        raise UserError(f'--verify cannot load the weights into {type(model).__module__}: {what}; leave --verify out')
    found: list[Tensor] = []
    for i in range(4):
        stage = model.get_submodule(f'level{i + 2}' if hasattr(model, 'level2') else f'layer{i + 1}')
        stage.register_forward_hook(lambda _, __, output: found.append(output))
    model.double().eval()  # not chained: eval() of OpenMMLab's models returns nothing
    with torch.inference_mode():
        model(image)
    return found
