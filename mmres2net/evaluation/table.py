"""Figures by class as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def class_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return ``rows`` as an aligned table: names to the left, numbers to the right, a dash for what has no value.

    Fractions get three decimals; what has no value is NaN, or -1 as COCO's evaluation says it.
    """
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return '-' if math.isnan(value) or value == -1 else f'{value:.3f}'
