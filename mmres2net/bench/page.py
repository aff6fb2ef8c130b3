"""A page of benchmark results, one generated section for each benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEAD = """# Benchmarks

Each section is written by the command that it names; nothing here is typed by hand. What is compared is first found to
give the same results. Runs take turns, and the median is given.

In all sections with a column of ratios each contender lives in a process of its own from start to end, and they take
turns (A B C A B C ...). Allocator settings, thread pools and caches belong to a process: in a common one each would
inherit the heap, the threads and the mapped memory of those before it. In turns a busy moment of the machine meets all
of them; while one runs, the others wait for input and take no processor time. A **ratio** is of the medians of all
turns; beside it are that of the fastest turns, and the least and the most of two turns that followed each other.
"Memory kept" is `mmres2net.malloc.keep_freed_memory()`.
"""
TITLE = HEAD.splitlines()[0]
SECTION = '<!-- '  # what a section begins with


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; columns after the first are aligned to the right."""
    rule = ['---', *['---:'] * (len(header) - 1)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *rows))


def write_section(path: str | Path, name: str, text: str) -> None:
    """Put ``text`` in the place of section ``name`` on the page, or at its end; other sections stay as they are.

    On a page of benchmarks, what stands before the first section becomes ``HEAD``; any other page keeps what it has.
    """
    path = Path(path)
    begin, end = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    page = path.read_text(encoding='utf-8') if path.exists() else HEAD
    if page.startswith(TITLE) and SECTION in page:
        page = HEAD + '\n' + page[page.index(SECTION) :]
    section = f'{begin}\n\n{text.strip()}\n\n{end}'
    if begin in page:
        before, rest = page.split(begin, 1)
        page = before + section + rest.split(end, 1)[1]
    else:
        page = f'{page.rstrip()}\n\n{section}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding='utf-8')
