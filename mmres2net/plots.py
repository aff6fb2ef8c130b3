"""Plots of runs and comparisons, drawn by matplotlib without a display: one palette, text legible in a README."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmres2net.files import atomic_path

PALETTE = ('#2f6db3', '#c4432b', '#3f8f4f', '#8a5ab0', '#d98a1f', '#4aa3a8', '#b0527f', '#6a6a6a')
STYLE = {'font.size': 10, 'axes.grid': True, 'axes.axisbelow': True, 'grid.alpha': 0.3}
STYLE |= {'axes.spines.top': False, 'axes.spines.right': False}
WIDTH, DPI = 8.0, 110  # inches, and pixels an inch
LONGEST = 24  # letters of a name
Line = tuple[str, str, Any, Any, tuple[Any, Any] | None]  # name, color, x, y, and the band around y


def save(path: Path, draw: Callable[[Any], None], width: float = WIDTH, height: float = 4.2) -> None:
    """Write what ``draw`` puts into a figure to ``path``, whose suffix gives the format."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({**STYLE, 'font.family': ['DejaVu Sans', *_more_fonts()]}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
        FigureCanvasAgg(figure)
        draw(figure)
        with atomic_path(path) as draft:
            figure.savefig(draft, format=path.suffix.removeprefix('.'))


@cache
def _more_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    wanted = re.compile('CJK|Noto Sans|WenQuanYi|Fallback|Arial Unicode|Unifont|Hiragino|YaHei|Malgun')
    return tuple(sorted({font.name for font in fontManager.ttflist if wanted.search(font.name)}))[:8]


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = [findfont(FontProperties(family=name)) for name in ('DejaVu Sans', *_more_fonts())]
    return frozenset(code for file in files for code in get_font(file).get_charmap())


def class_labels(names: Sequence[str], kind: str = 'class') -> list[str]:
    """Return all class names for plots: long ones shortened, those that no installed font can write as ``class 3``."""
    written = [name if _letters().issuperset(map(ord, name)) else f'{kind} {k}' for k, name in enumerate(names)]
    short = [f'{name[:14]}…{name[-9:]}' if len(name) > LONGEST else name for name in written]
    return [name.replace('$', r'\$') for name in short]


def draw_lines(figure: Any, panels: Mapping[tuple[str, str, str], Sequence[Line]]) -> None:
    """Draw lines into panels side by side, each with its title and the labels of x and y."""
    for axes, (words, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, color, x, y, band in lines:
            axes.plot(x, y, color=color, label=name, marker='o' if len(x) < 30 else '', markersize=4)
            if band:
                axes.fill_between(x, *band, color=color, alpha=0.2, linewidth=0)
        axes.set(title=words[0], xlabel=words[1], ylabel=words[2])
        axes.margins(0.1)
        axes.legend(fontsize=8)
