"""Text that people read: the one printer of tables and of metrics, the one shortener of lists, the reader of sizes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmres2net.errors import UserError

LONGEST = 32  # arrays with more values are not printed
_NUMBER = re.compile(r'[-+]?\.?\d|-$')  # a dash stands for a missing number
_SIZE = re.compile(r'([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})')


def format_table(rows: Iterable[Sequence[Any]], header: Sequence[Any] | None = None, *, markdown: bool = False) -> str:
    """Return ``rows`` of equal length as an aligned table; columns of numbers are aligned to the right.

    Cells are printed by ``str``, None as an empty one. The ``header`` has a rule below it. With ``markdown`` it is a
    table that Markdown renders, with pipes escaped in cells.
    """
    body = [['' if cell is None else str(cell) for cell in row] for row in rows]
    if markdown:
        body = [[cell.replace('|', '\\|') for cell in row] for row in body]
    lines = [*([[str(cell) for cell in header]] if header is not None else []), *body]
    columns = range(len(lines[0]) if lines else 0)
    widths = [max(3, *(len(line[i]) for line in lines)) for i in columns]
    right = [any(row[i] for row in body) and all(_NUMBER.match(row[i]) for row in body if row[i]) for i in columns]
    if header is not None:
        ends = [':' if markdown and numbers else '-' for numbers in right]
        lines.insert(1, ['-' * (width - 1) + end for width, end in zip(widths, ends, strict=True)])
    sides = [str.rjust if numbers else str.ljust for numbers in right]
    padded = [[side(cell, width) for cell, width, side in zip(line, widths, sides, strict=True)] for line in lines]
    return '\n'.join(f'| {" | ".join(cells)} |' if markdown else '  '.join(cells).rstrip() for cells in padded)


def join_some(items: Iterable[Any], *, limit: int = 5, sep: str = ', ') -> str:
    """Return the first ``limit`` of ``items`` and how many more there are: ``a, b and 3 more``.

    With a line break in ``sep``, which stands between them, the count gets a line of its own.
    """
    texts = [str(item) for item in items]
    shown = sep.join(texts[:limit])
    rest = len(texts) - limit
    return shown if rest <= 0 else f'{shown}{sep if chr(10) in sep else " "}and {rest} more'


def parse_size(text: str, *, flag: str = '--size', least: int = 1) -> tuple[int, int]:
    """Return (height, width) of a text such as ``800x1216``, given to ``flag``; a UserError for any other text."""
    match = _SIZE.fullmatch(text.strip())
    if not match or min(int(match[1]), int(match[2])) < least:
        raise UserError(f'{flag} {text}: give height and width in pixels as HxW, {least} or more each, as 800x1216')
    return int(match[1]), int(match[2])


def overall(metrics: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return ``metrics`` without those of single classes, whose names end in ``_NAME``."""
    ends = tuple(f'_{name}' for name in classes)
    return {name: value for name, value in metrics.items() if not (ends and name.endswith(ends))}


def metric_table(metrics: Mapping[str, Any], title: str) -> str:
    """Return ``metrics`` as an aligned table of names and values under ``title``.

    Values are printed as the evaluator gives them: those of COCO and VOC as fractions, -1 where no object is of that
    kind. They may be numbers, arrays or tensors (a long one by its shape), text or None.
    """
    table = format_table([[name, value_text(value)] for name, value in metrics.items()] or [['no metrics']])
    return '\n'.join([title, *(f'  {line}' for line in table.splitlines())])


def value_text(value: Any) -> str:
    """Return a metric's value with three decimals; lists and arrays of numbers in brackets."""
    if hasattr(value, 'tolist'):  # tensors, arrays and scalars of torch and NumPy
        if math.prod(value.shape) > LONGEST:
            return f'{math.prod(value.shape)} values of shape {tuple(value.shape)}'
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(value_text, value))}]'
    return f'{value:.3f}' if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
