"""Results as text: the table that closes a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmres2net.text import format_table

LONGEST = 32  # arrays with more values are not printed


def metric_table(metrics: Mapping[str, Any], title: str) -> str:
    """Return ``metrics`` as an aligned table of names and values under ``title``.

    Values are printed as the evaluator gives them: those of COCO and VOC as fractions, -1 where no object is of that
    kind. They may be numbers, arrays or tensors (a long one by its shape), text or None.
    """
    if not metrics:
        return f'{title}: no metrics'
    table = format_table([(name, value_text(value)) for name, value in metrics.items()])
    return '\n'.join([title, *(f'  {line}' for line in table.splitlines())])


def value_text(value: Any) -> str:
    """Return a metric's value with three decimals; lists and arrays of numbers in brackets."""
    if hasattr(value, 'tolist'):  # tensors, arrays and scalars of torch and NumPy
        count = value.numel() if hasattr(value, 'numel') else value.size
        if count > LONGEST:
            return f'{count} values of shape {tuple(value.shape)}'
        value = value.tolist()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):
        return f'{value:.3f}'
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(value_text, value))}]'
    return str(value)
