"""Figures of the turns: medians, spread and ratios, as tables and bars."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mmres2net.bench.page import table
from mmres2net.bench.turns import Contender

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Summary:
    """What the turns of a contender come to.

    Args:
        seconds: Median of the seconds a call.
        fastest: The least.
        slowest: The most.
        peak_mib: Median of the peak memory.
        ratio: Median over the median of what it is compared with; None where that is absent.
        ratio_of_fastest: Least over least.
        ratio_low: The least ratio of two turns that followed each other.
        ratio_high: The largest of these.
    """

    seconds: float
    fastest: float
    slowest: float
    peak_mib: float
    ratio: float | None = None
    ratio_of_fastest: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


def summarise(contenders: Sequence[Contender], runs: Runs) -> dict[str, Summary]:
    """Return the figures of all contenders that have ``runs``, by name."""
    by_turn = {name: [one['seconds'] / one['calls'] for one in each] for name, each in runs.items()}
    found = {}
    for one in contenders:
        if one.name not in by_turn:
            continue
        seconds = by_turn[one.name]
        base = by_turn.get(one.against or '')
        found[one.name] = Summary(
            seconds=median(seconds),
            fastest=min(seconds),
            slowest=max(seconds),
            peak_mib=median(run['peak_mib'] for run in runs[one.name]),
            **_ratios(seconds, base),
        )
    return found


def _ratios(seconds: Sequence[float], base: Sequence[float] | None) -> dict[str, float]:
    if base is None:
        return {}
    in_turn = [one / other for one, other in zip(seconds, base, strict=True)]
    return {
        'ratio': median(seconds) / median(base),
        'ratio_of_fastest': min(seconds) / min(base),
        'ratio_low': min(in_turn),
        'ratio_high': max(in_turn),
    }


@dataclass(frozen=True)
class Column:
    """A further column of a table: its head, and its cells by contender."""

    head: str
    cells: Mapping[str, str]


def ratio_table(
    contenders: Sequence[Contender],
    summaries: Mapping[str, Summary],
    absent: Mapping[str, str],
    columns: Sequence[Column] = (),
) -> str:
    """Return a table with a row for each contender; one that was not measured says why."""
    rows = []
    for one in contenders:
        name = f'{one.name} ({one.note})' if one.note else one.name
        if one.name in summaries:
            rows.append([name, *_cells(summaries[one.name]), *(column.cells.get(one.name, '') for column in columns)])
        else:
            reason = f'not measured: {absent.get(one.name, "no turn")}'.replace('|', '/')
            rows.append([f'{name}; {reason}', *[''] * (5 + len(columns))])
    head = ['contender', 'ratio', 'of the fastest turns', 'turn by turn', 'ms', 'all turns, ms']
    return table([*head, *(column.head for column in columns)], rows)


def _cells(one: Summary) -> list[str]:
    ratios = ['', '', '']
    if one.ratio is not None:
        ratios = [f'{one.ratio:.3f}', f'{one.ratio_of_fastest:.3f}', f'{one.ratio_low:.2f} to {one.ratio_high:.2f}']
    return [*ratios, ms(one.seconds), f'{ms(one.fastest)} to {ms(one.slowest)}']


def ms(seconds: float) -> str:
    """Return milliseconds with three digits that count."""
    value = seconds * 1000
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def bars(title: str, contenders: Sequence[Contender], summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """Return a panel of the plot: a bar for each contender that has a ratio."""
    found = [(one.name, summaries[one.name]) for one in contenders if one.name in summaries]
    return {
        'title': title,
        'bars': [
            {
                'name': name, 'ratio': one.ratio, 'low': one.ratio_low, 'high': one.ratio_high,
                'ours': re.search(r'\bours?\b', name) is not None,
            }
            for name, one in found
            if one.ratio is not None
        ],
    }  # fmt: skip


def as_json(summaries: Mapping[str, Summary]) -> dict[str, dict[str, Any]]:
    """Return the figures as plain dicts."""
    return {name: asdict(one) for name, one in summaries.items()}
