"""Metrics by class as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmres2net.text import format_table


def class_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return ``rows`` as a table: fractions with three decimals, a dash for NaN and for -1, COCO's missing value."""
    return format_table([[_cell(value) for value in row] for row in rows], header)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return '-' if math.isnan(value) or value == -1 else f'{value:.3f}'
