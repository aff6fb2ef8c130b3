"""Text that people read: the one table printer, the one shortener of lists and the one reader of HxW sizes.

Only the standard library is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mmres2net.errors import UserError

_NUMBER = re.compile(r'[-+]?\.?\d|-$')  # a dash stands for a missing number
_SIZE = re.compile(r'([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})')


def format_table(rows: Iterable[Sequence[Any]], header: Sequence[Any] | None = None, *, markdown: bool = False) -> str:
    """Return ``rows`` as an aligned table; columns of numbers are aligned to the right, all others to the left.

    Args:
        rows: Rows of equal length. Cells are printed by ``str``; None is printed as an empty cell.
        header: Names of the columns, printed above a rule.
        markdown: Return a table that Markdown renders, with pipes escaped in cells.

    Raises:
        ValueError: Rows of different lengths.
    """
    body = [['' if cell is None else str(cell) for cell in row] for row in rows]
    if markdown:
        body = [[cell.replace('|', '\\|') for cell in row] for row in body]
    lines = [*([[str(cell) for cell in header]] if header is not None else []), *body]
    if len({len(line) for line in lines}) > 1:
        raise ValueError(f'the rows of a table must be of equal length, got {sorted({len(line) for line in lines})}')
    columns = range(len(lines[0]) if lines else 0)
    widths = [max(3, *(len(line[i]) for line in lines)) for i in columns]
    right = [any(row[i] for row in body) and all(_NUMBER.match(row[i]) for row in body if row[i]) for i in columns]
    if header is not None:
        ends = [':' if markdown and numbers else '-' for numbers in right]
        lines.insert(1, ['-' * (width - 1) + end for width, end in zip(widths, ends, strict=True)])
    padded = [
        [
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(line, widths, right, strict=True)
        ]
        for line in lines
    ]
    return '\n'.join(f'| {" | ".join(cells)} |' if markdown else '  '.join(cells).rstrip() for cells in padded)


def join_some(items: Iterable[Any], *, limit: int = 5, sep: str = ', ') -> str:
    """Return the first ``limit`` of ``items`` and how many more there are: ``a, b and 3 more``.

    Args:
        items: Anything that ``str`` prints.
        limit: How many are printed.
        sep: What stands between them; with a line break in it, the count gets a line of its own.
    """
    texts = [str(item) for item in items]
    shown = sep.join(texts[:limit])
    rest = len(texts) - limit
    return shown if rest <= 0 else f'{shown}{sep if chr(10) in sep else " "}and {rest} more'


def parse_size(text: str, *, flag: str = '--size', least: int = 1) -> tuple[int, int]:
    """Return (height, width) in pixels of a text such as ``800x1216``.

    Args:
        text: ``HxW``.
        flag: The flag that it was given to, for the message.
        least: The smallest height and width allowed.

    Raises:
        UserError: It is no such text, or a size is under ``least``.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match or min(int(match[1]), int(match[2])) < least:
        raise UserError(
            f'{flag} {text}: give height and width in pixels as HxW, {least} or more each, such as 800x1216'
        )
    return int(match[1]), int(match[2])
