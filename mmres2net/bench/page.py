"""A page of benchmark results, one generated section for each benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEAD = """# Benchmarks

Each section is written by the command that it names; nothing here is typed by hand. What is compared is first found to
give the same results. Runs take turns, and the median is given.
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; columns after the first are aligned to the right."""
    rule = ['---', *['---:'] * (len(header) - 1)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *rows))


def write_section(path: str | Path, name: str, text: str) -> None:
    """Put ``text`` in the place of section ``name`` on the page, or at its end; other sections stay as they are."""
    path = Path(path)
    begin, end = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    page = path.read_text(encoding='utf-8') if path.exists() else HEAD
    section = f'{begin}\n\n{text.strip()}\n\n{end}'
    if begin in page:
        before, rest = page.split(begin, 1)
        page = before + section + rest.split(end, 1)[1]
    else:
        page = f'{page.rstrip()}\n\n{section}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding='utf-8')
