"""Results as text: the tables of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmres2net.text import format_table

LONGEST = 32  # arrays with more values are not printed


def overall(metrics: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return ``metrics`` without those of single classes, whose names end in ``_NAME``."""
    ends = tuple(f'_{name}' for name in classes)
    return {name: value for name, value in metrics.items() if not (ends and name.endswith(ends))}


def metric_table(metrics: Mapping[str, Any], title: str, best: Mapping[str, Any] | None = None) -> str:
    """Return ``metrics`` as an aligned table of names and values under ``title``.

    Values are printed as the evaluator gives them: those of COCO and VOC as fractions, -1 where no object is of that
    kind. They may be numbers, arrays or tensors (a long one by its shape), text or None. The values of the ``best``
    evaluation are a second column.
    """
    if not metrics:
        return f'{title}: no metrics'
    rows = [[name, value_text(value)] for name, value in metrics.items()]
    if best:
        rows = [[*row, value_text(best[row[0]]) if row[0] in best else ''] for row in rows]
    table = format_table(rows, ['metric', 'last', 'best'] if best else None)
    return '\n'.join([title, *(f'  {line}' for line in table.splitlines())])


def value_of(value: Any) -> Any:
    """Return a single number of torch or NumPy as one of Python, anything else as it is."""
    count = value.numel() if hasattr(value, 'numel') else getattr(value, 'size', 0)
    return value.item() if count == 1 else value


def value_text(value: Any) -> str:
    """Return a metric's value with three decimals; lists and arrays of numbers in brackets."""
    if hasattr(value, 'tolist'):  # tensors, arrays and scalars of torch and NumPy
        count = value.numel() if hasattr(value, 'numel') else value.size
        if count > LONGEST:
            return f'{count} values of shape {tuple(value.shape)}'
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(value_text, value))}]'
    return f'{value:.3f}' if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
