"""Checks of the constructors' options. Each wrong value is a ValueError that names the value and what is allowed.

Pure functions on numbers, shared by the backbones.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, get_args

from mmres2net.models.arch import Arch, Family, find_arch

StagePool = Literal['official', 'mmdet', 'maskrcnn']
STAGE_POOLS: tuple[str, ...] = get_args(StagePool)
STRIDES = (1, 2, 2, 2)  # of the stages behind a stem of stride 4
OUTPUT_STRIDES = (8, 16, 32)
PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
CUSTOM_FAMILIES = {'res2net': 4, 'cifar': 3}  # families of networks outside the table, with their largest stage number

Cfg = dict[str, Any]


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Check that ``value`` is one of ``allowed``."""
    if value not in tuple(allowed) or isinstance(value, bool):
        raise ValueError(f'{name}={value!r} must be one of {tuple(allowed)}')


def check_int(name: str, value: int, least: int) -> int:
    """Return ``value``, an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{name}={value!r} must be a whole number of {least} or more')
    return value


def check_ints(name: str, values: Sequence[int], least: int) -> tuple[int, ...]:
    """Return ``values`` as a tuple of integers of at least ``least``."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f'{name}={values!r} must be a list or tuple of whole numbers of {least} and more')
    return tuple(check_int(f'{name}[{i}]', value, least) for i, value in enumerate(values))


def resolve_arch(
    arch: str | None, depths: Sequence[int] | None = None, base_width: int | None = None, scales: int | None = None,
    cardinality: int | None = None, family: Family | None = None, deep_stem: bool | None = None,
    avg_down: bool | None = None, se_reduction: int | None = None,
) -> Arch:  # fmt: skip
    """Return the architecture named ``arch``, or one of the numbers; stem, shortcut and SE can be set for both."""
    numbers: dict[str, Any] = _given(
        depths=depths, base_width=base_width, scales=scales, cardinality=cardinality, family=family
    )
    if arch is not None and numbers:
        raise ValueError(f'arch={arch!r} fixes the network: leave out {", ".join(numbers)}, or leave out arch')
    found = _custom_arch(**numbers) if arch is None else find_arch(arch)
    if found.family == 'dla':
        raise ValueError(f"arch={arch!r} is of the DLA family; build it with type='mmres2net.Res2NetDLA'")
    if se_reduction is not None:
        check_int('se_reduction', se_reduction, 1)
    return replace(found, **_given(deep_stem=deep_stem, avg_down=avg_down, se_reduction=se_reduction))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _custom_arch(depths: Sequence[int] | None = None, family: Family = 'res2net', **numbers: Any) -> Arch:
    if depths is None:
        raise ValueError("give arch, e.g. arch='res2net50_26w_4s', or depths, e.g. depths=(3, 4, 6, 3)")
    check_choice('family', family, CUSTOM_FAMILIES)
    depths = check_ints('depths', depths, 1)
    if not 1 <= len(depths) <= CUSTOM_FAMILIES[family]:
        most = CUSTOM_FAMILIES[family]
        raise ValueError(f'depths={depths} has {len(depths)} stages; a network of family {family!r} has 1 to {most}')
    rest: dict[str, Any] = {name: check_int(name, value, 1) for name, value in numbers.items()}
    return Arch(depths, family=family, **rest)


def resolve_out_indices(out_indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Return the indices of the stages whose output is returned, all by default."""
    if out_indices is None:
        return tuple(range(num_stages))
    indices = check_ints('out_indices', out_indices, 0)
    if not indices or max(indices) >= num_stages or list(indices) != sorted(set(indices)):
        raise ValueError(
            f'out_indices={indices}: give at least one of {tuple(range(num_stages))}, each once, ascending'
        )
    return indices


@dataclass(frozen=True)
class StagePlan:
    """Strides and dilations of a stage."""

    stride: int  # of the first block
    dilations: tuple[int, ...]  # of each block
    is_dilated: bool  # it was given a dilation, or one in exchange for its stride


def plan_stages(
    depths: tuple[int, ...], strides: Sequence[int] | None = None, dilations: Sequence[int] | None = None,
    output_stride: int | None = None, multi_grid: Sequence[int] | None = None, contract_dilation: bool | None = None,
    num_built: int = 4,
) -> tuple[StagePlan, ...]:  # fmt: skip
    """Return strides and dilations of each stage; see :class:`mmres2net.models.Res2Net` for the options."""
    num_stages = len(depths)
    default_strides = STRIDES[:num_stages]
    if output_stride is None:
        strides = _stage_ints('strides', strides, default_strides)
        dilations = _stage_ints('dilations', dilations, (1,) * num_stages)
    elif strides is not None or dilations is not None:
        raise ValueError(f'output_stride={output_stride} sets strides and dilations; leave those two out')
    else:
        strides, dilations = trade_strides(default_strides, output_stride)
    contract = output_stride is not None if contract_dilation is None else contract_dilation
    plans = []
    for depth, stride, dilation in zip(depths, strides, dilations, strict=True):
        first = dilation // 2 if contract and dilation > 1 else dilation
        plans.append(StagePlan(stride, (first, *[dilation] * (depth - 1)), dilation > 1))
    if multi_grid is not None:
        grid = check_ints('multi_grid', multi_grid, 1)
        if num_built < num_stages:
            raise ValueError(f'multi_grid={grid} is for stage {num_stages - 1}, which out_indices leaves out')
        if len(grid) != depths[-1]:
            raise ValueError(f'multi_grid={grid} must have a dilation for each of the last {depths[-1]} blocks')
        plans[-1] = replace(plans[-1], dilations=grid)
    return tuple(plans)


def trade_strides(default_strides: tuple[int, ...], output_stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return strides and dilations of each stage for a total stride of ``output_stride``, after a stem of stride 4."""
    check_choice('output_stride', output_stride, OUTPUT_STRIDES)
    if len(default_strides) != 4:
        raise ValueError(f'output_stride={output_stride} is for four stages; give strides and dilations instead')
    totals = [4 * prod(default_strides[: i + 1]) for i in range(4)]
    strides = [1 if total > output_stride else stride for total, stride in zip(totals, default_strides, strict=True)]
    return tuple(strides), tuple(max(total // output_stride, 1) for total in totals)


def _stage_ints(name: str, values: Sequence[int] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    ints = default if values is None else check_ints(name, values, 1)
    if len(ints) != len(default):
        raise ValueError(f'{name}={ints} must have one number for each of the {len(default)} stages')
    return ints


def drop_path_rates(num_blocks: int, rate: float) -> Iterator[float]:
    """Return each block's drop probability: from 0 at the first block to ``rate`` at the last (Huang et al. 2016)."""
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate={rate!r} must be at least 0 and less than 1')
    return (rate * i / max(num_blocks - 1, 1) for i in range(num_blocks))


def dcn_by_stage(dcn: Cfg | None, stage_with_dcn: Sequence[bool] | None, num_stages: int) -> list[Cfg | None]:
    """Return the deformable convolution config of each stage, None for plain convolutions."""
    if dcn is None and not any(stage_with_dcn or ()):
        return [None] * num_stages
    if dcn is None or stage_with_dcn is None or len(stage_with_dcn) != num_stages or not any(stage_with_dcn):
        need = f'a config, and a bool for each of the {num_stages} stages, at least one of them True'
        raise ValueError(f'dcn={dcn} and stage_with_dcn={stage_with_dcn} go together: {need}')
    return [dcn if used else None for used in stage_with_dcn]


def plugins_by_stage(plugins: Sequence[Cfg] | None, num_stages: int) -> list[list[Cfg]]:
    """Return the plugins of each stage."""
    by_stage: list[list[Cfg]] = [[] for _ in range(num_stages)]
    for plugin in plugins or ():
        stages = plugin.get('stages', (True,) * num_stages)
        known = set(plugin) <= {'cfg', 'position', 'stages'} and 'cfg' in plugin
        if not known or plugin.get('position') not in PLUGIN_POSITIONS or len(stages) != num_stages:
            need = f'a position of {PLUGIN_POSITIONS} and, if it has stages, a bool for each of the {num_stages} stages'
            raise ValueError(f'plugin {plugin} must have cfg, {need}')
        for own, used in zip(by_stage, stages, strict=True):
            own += [plugin] if used else []
    return by_stage
