"""Checks of the constructors' options: each mistake gets one error that names the value and what is allowed.

Pure functions on numbers, shared by the backbones, so that the networks read as networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmres2net.models.arch import Arch, Family, find_arch

OUTPUT_STRIDES = (8, 16, 32)
STAGE_POOLS = ('official', 'mmdet', 'maskrcnn')
PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
CUSTOM_FAMILIES = {'res2net': 4, 'cifar': 3}  # networks outside the table, and the stages that they have at most

Cfg = dict[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """Stride of a stage and dilation of each of its blocks."""

    stride: int
    dilations: tuple[int, ...]
    is_dilated: bool
    """The stage's stride was traded for dilation, or it was given a dilation."""


def resolve_arch(
    arch: str | None,
    depths: Sequence[int] | None,
    base_width: int | None,
    scales: int | None,
    cardinality: int | None,
    deep_stem: bool | None,
    avg_down: bool | None,
    se_reduction: int | None,
    family: Family | None = None,
) -> Arch:
    """Return the row named ``arch``, or one made of the numbers; stem, shortcut and SE may be set for both."""
    numbers: dict[str, Any] = {
        'depths': depths,
        'base_width': base_width,
        'scales': scales,
        'cardinality': cardinality,
        'family': family,
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    if arch is None:
        row = _custom_arch(given)
    elif given:
        raise ValueError(
            f'arch={arch!r} fixes depths, base_width, scales, cardinality and family; leave out {", ".join(given)}, or '
            'leave out arch to build a network outside the table'
        )
    else:
        row = _arch_of_table(arch)
    if se_reduction is not None:
        check_int('se_reduction', se_reduction, 1)
    features: dict[str, Any] = {'deep_stem': deep_stem, 'avg_down': avg_down, 'se_reduction': se_reduction}
    return replace(row, **{name: value for name, value in features.items() if value is not None})


def _arch_of_table(name: str) -> Arch:
    try:
        return find_arch(name)
    except ValueError as error:
        raise ValueError(
            f'{error} For a network outside the table leave arch out and give depths, base_width, scales, '
            'cardinality and family.'
        ) from None


def _custom_arch(given: dict[str, Any]) -> Arch:
    if 'depths' not in given:
        raise ValueError("give arch, e.g. arch='res2net50_26w_4s', or depths, e.g. depths=(3, 4, 6, 3)")
    family = given.get('family', 'res2net')
    if family not in tuple(CUSTOM_FAMILIES):
        hint = '; networks of deep layer aggregation are built by their arch' if family == 'dla' else ''
        raise ValueError(f'family={family!r} must be one of {tuple(CUSTOM_FAMILIES)}{hint}')
    depths = check_ints('depths', given['depths'], 1)
    most = CUSTOM_FAMILIES[family]
    if not 1 <= len(depths) <= most:
        raise ValueError(f'depths={depths} has {len(depths)} stages; a network of family {family!r} has 1 to {most}')
    rest = {name: value for name, value in given.items() if name not in ('depths', 'family')}
    numbers: dict[str, Any] = {name: check_int(name, value, 1) for name, value in rest.items()}
    return Arch(depths, family=family, **numbers)


def resolve_out_indices(out_indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Return the stages to give out, all by default."""
    if out_indices is None:
        return tuple(range(num_stages))
    found = check_ints('out_indices', out_indices, 0)
    if not found or max(found) >= num_stages or list(found) != sorted(set(found)):
        raise ValueError(
            f'out_indices={found} must be stages out of {tuple(range(num_stages))}, at least one, each once, ascending'
        )
    return found


def check_frozen_stages(frozen_stages: int, num_stages: int) -> int:
    """Return ``frozen_stages``: -1 freezes nothing, 0 the stem, k the stem and the first k stages."""
    if isinstance(frozen_stages, bool) or not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= num_stages:
        raise ValueError(
            f'frozen_stages={frozen_stages!r} must be from -1 (nothing) over 0 (the stem) to {num_stages} '
            '(the stem and all stages that are built)'
        )
    return frozen_stages


def plan_stages(
    depths: tuple[int, ...],
    default_strides: tuple[int, ...],
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    contract_dilation: bool | None = None,
    built: int | None = None,
) -> tuple[StagePlan, ...]:
    """Return stride and dilations per stage; see the backbone's docstring for what the options mean."""
    num_stages = len(depths)
    if output_stride is not None:
        if strides is not None or dilations is not None:
            raise ValueError(f'output_stride={output_stride} sets strides and dilations; leave those two out')
        stride_row, dilation_row = trade_strides(default_strides, output_stride)
    else:
        stride_row = _stage_ints('strides', strides, default_strides)
        dilation_row = _stage_ints('dilations', dilations, (1,) * num_stages)
    contract = output_stride is not None if contract_dilation is None else contract_dilation
    plans = [
        StagePlan(
            stride, (dilation // 2 if contract and dilation > 1 else dilation, *[dilation] * (depth - 1)), dilation > 1
        )
        for depth, stride, dilation in zip(depths, stride_row, dilation_row, strict=True)
    ]
    if multi_grid is not None:
        grid = check_ints('multi_grid', multi_grid, 1)
        if built is not None and built < num_stages:
            raise ValueError(f'multi_grid={grid} is for stage {num_stages - 1}, which out_indices leaves out')
        if len(grid) != depths[-1]:
            raise ValueError(
                f'multi_grid={grid} must have one dilation for each of the {depths[-1]} blocks of the last stage'
            )
        plans[-1] = replace(plans[-1], dilations=grid)
    return tuple(plans)


def trade_strides(default_strides: tuple[int, ...], output_stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return strides and dilations per stage for a total stride of ``output_stride``, after a stem of stride 4."""
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f'output_stride={output_stride!r} must be one of {OUTPUT_STRIDES}')
    if len(default_strides) != 4:
        raise ValueError(
            f'output_stride={output_stride} needs a network of four stages; give strides and dilations instead'
        )
    total, dilation = 4, 1
    strides, dilations = [], []
    for stride in default_strides:
        if total * stride > output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        strides.append(stride)
        dilations.append(dilation)
    return tuple(strides), tuple(dilations)


def _stage_ints(name: str, values: Sequence[int] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    if values is None:
        return default
    found = check_ints(name, values, 1)
    if len(found) != len(default):
        raise ValueError(f'{name}={found} must have one number for each of the {len(default)} stages')
    return found


def check_ints(name: str, values: Sequence[int], least: int) -> tuple[int, ...]:
    """Return ``values`` as a tuple of whole numbers of at least ``least``."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f'{name}={values!r} must be a list or tuple of whole numbers of {least} and more')
    return tuple(check_int(f'{name}[{i}]', value, least) for i, value in enumerate(values))


def check_int(name: str, value: int, least: int) -> int:
    """Return ``value``, a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{name}={value!r} must be a whole number of {least} or more')
    return value


def check_choices(row: Arch, stage_pool: str, drop_path_rate: float) -> None:
    """Check what is a choice and not a shape."""
    if row.family == 'dla':
        raise ValueError("this arch is of the DLA family; build it with type='mmres2net.Res2NetDLA'")
    if stage_pool not in STAGE_POOLS:
        raise ValueError(f'stage_pool={stage_pool!r} must be one of {STAGE_POOLS}')
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate={drop_path_rate!r} must be at least 0 and less than 1')


def dcn_by_stage(dcn: Cfg | None, stage_with_dcn: Sequence[bool] | None, num_stages: int) -> list[Cfg | None]:
    """Return the deformable convolution config of each stage, None where it has plain ones."""
    if dcn is None and not any(stage_with_dcn or ()):
        return [None] * num_stages
    if dcn is None or stage_with_dcn is None or len(stage_with_dcn) != num_stages or not any(stage_with_dcn):
        raise ValueError(
            f'dcn={dcn} and stage_with_dcn={stage_with_dcn} go together: a deformable convolution config and a bool '
            f'for each of the {num_stages} stages, at least one of them True'
        )
    return [dcn if used else None for used in stage_with_dcn]


def plugins_by_stage(plugins: Sequence[Cfg] | None, num_stages: int) -> list[list[Cfg]]:
    """Return the plugins of each stage."""
    by_stage: list[list[Cfg]] = [[] for _ in range(num_stages)]
    for plugin in plugins or ():
        stages = plugin.get('stages', (True,) * num_stages)
        known = set(plugin) <= {'cfg', 'position', 'stages'} and 'cfg' in plugin
        if not known or plugin.get('position') not in PLUGIN_POSITIONS or len(stages) != num_stages:
            raise ValueError(
                f'plugin {plugin} must have cfg, a position of {PLUGIN_POSITIONS} and, if it has stages, a bool for '
                f'each of the {num_stages} stages'
            )
        for i, used in enumerate(stages):
            if used:
                by_stage[i].append(plugin)
    return by_stage


def drop_path_by_stage(depths: Sequence[int], rate: float) -> list[list[float]]:
    """Return each block's drop probability: 0 at the first block, ``rate`` at the last (Huang et al. 2016)."""
    last = max(sum(depths) - 1, 1)
    rates = iter(rate * i / last for i in range(sum(depths)))
    return [[next(rates) for _ in range(depth)] for depth in depths]


def strides_of(plans: Sequence[StagePlan], stem: int, out_indices: Sequence[int]) -> tuple[int, ...]:
    """Return the stride against the image of each stage of ``out_indices``."""
    totals: list[int] = []
    total = stem
    for plan in plans:
        total *= plan.stride
        totals.append(total)
    return tuple(totals[i] for i in out_indices)
