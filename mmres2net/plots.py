"""Plots of runs, drawn by matplotlib without a display: one palette, text that is legible in a README.

Every function writes one file, or raises :class:`NothingToDraw` with the reason.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmres2net.files import atomic_path

PALETTE = ('#2f6db3', '#c4432b', '#3f8f4f', '#8a5ab0', '#d98a1f', '#4aa3a8', '#b0527f', '#6a6a6a')
STYLE = {
    'font.size': 10,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.alpha': 0.3,
    'axes.spines.top': False,
    'axes.spines.right': False,
}
WIDTH, DPI = 8.0, 110  # inches, and pixels an inch
MOST_BARS, MOST_CELLS, MOST_LINES, LONGEST = 30, 30, 8, 24  # of more, the first and last ones are drawn; of letters
Array = np.ndarray[Any, Any]


class NothingToDraw(Exception):  # noqa: N818 - it is no fault
    """A plot would be empty; the message says why."""


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


def class_labels(names: Sequence[str]) -> list[str]:
    """Return class names for plots: long ones shortened; names that no installed font can write as ``class 3``."""
    written = [name if _letters().issuperset(map(ord, name)) else f'class {k}' for k, name in enumerate(names)]
    short = [f'{name[:14]}…{name[-9:]}' if len(name) > LONGEST else name for name in written]
    return [name.replace('$', r'\$') for name in short]  # matplotlib's mark of formulas


def _ends(order: Array, most: int) -> tuple[Array, str]:
    """Return the first and last of ``order`` if there are more than ``most``, and a note on it."""
    if len(order) <= most:
        return order, ''
    return np.r_[order[: most // 2], order[-most // 2 :]], f' (first and last {most // 2} of {len(order)} classes)'


def draw_curves(path: Path, panels: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
    """Draw lines over training steps; a panel for each title, with lines (x, y) by name. NothingToDraw: all are NaN."""
    panels = {title: {k: v for k, v in lines.items() if np.isfinite(v[1]).any()} for title, lines in panels.items()}
    panels = {title: dict(list(lines.items())[:MOST_LINES]) for title, lines in panels.items() if lines}
    if not panels:
        raise NothingToDraw('there are no finite values')

    def draw(figure: Any) -> None:
        for axes, (title, lines) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
            for (name, (x, y)), color in zip(lines.items(), PALETTE, strict=False):
                window = max(len(x) // 20, 1) if 'loss' in name else 1
                axes.plot(x, y, color=color, alpha=1 if window == 1 else 0.25, marker='.' if len(x) < 30 else '')
                if window > 1:  # the mean of a twentieth of the steps over the values of each step
                    mean = np.convolve(y, np.full(window, 1 / window), 'valid')
                    axes.plot(x[window // 2 :][: len(mean)], mean, color=color)
                axes.plot([], [], color=color, label=name)
            axes.set(title=title, xlabel='step')
            axes.legend(fontsize=8)

    save(path, draw, width=max(WIDTH * len(panels) / 2, 5))


def draw_bars(path: Path, names: Sequence[str], values: Mapping[str, Array], title: str, counts: bool = False) -> None:
    """Draw a group of horizontal bars for each of K classes, the best first.

    ``values`` are arrays (K,) by name, NaN where a class has none: fractions, or ``counts``. NothingToDraw: all NaN.
    """
    first = next(iter(values.values()))
    order = np.argsort(-first, kind='stable')
    order, note = _ends(order[np.isfinite(first[order])], MOST_BARS)
    if not np.isfinite(first).any() or (counts and not first.any()):
        raise NothingToDraw('no class has a value')

    def draw(figure: Any) -> None:
        axes, thick = figure.subplots(), 0.8 / len(values)
        for number, (name, each) in enumerate(values.items()):
            places = np.arange(len(order)) + (number - (len(values) - 1) / 2) * thick
            bars = axes.barh(places, np.nan_to_num(each[order]), thick, color=PALETTE[number], label=name)
            axes.bar_label(bars, [f'{v:,.0f}' if counts else f'{v:.2f}' for v in each[order]], fontsize=8, padding=2)
        axes.set_yticks(range(len(order)), [class_labels(names)[k] for k in order])
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.02)
        axes.set_xlim(0, None if np.nan_to_num(list(values.values())).any() else 1)
        axes.set_title(title + note)
        if len(values) > 1:
            axes.legend(fontsize=8, loc='lower right')

    save(path, draw, height=1.2 + len(order) * (0.16 + 0.14 * len(values)))


def draw_class_curves(path: Path, names: Sequence[str], x: Array, curves: Array, words: tuple[str, str, str]) -> None:
    """Draw a curve (K, N) over ``x`` (N,) for each class, and their mean; NaN rows are left out.

    ``words`` are the title and the names of the axes. NothingToDraw: every row is NaN.
    """
    there = np.flatnonzero(np.isfinite(curves).all(1))
    if not len(there):
        raise NothingToDraw('no class has an object')
    shown, note = _ends(there[np.argsort(-curves[there].mean(1), kind='stable')], MOST_LINES)

    def draw(figure: Any) -> None:
        axes, labels, mean = figure.subplots(), class_labels(names), curves[there].mean(0)
        for k, color in zip(shown, PALETTE, strict=False):
            axes.plot(x, curves[k], color=color, linewidth=1, label=labels[k])
        axes.plot(x, mean, color='black', linewidth=2, label=f'mean of {len(there)}')
        best = f'best mean {mean.max():.3f} at {x[mean.argmax()]:.2f}'
        value = best if mean.argmax() else f'mean {mean.mean():.3f}'  # precision falls with recall
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=words[1], ylabel=words[2], title=f'{words[0]}{note}\n{value}')
        axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))

    save(path, draw)


def draw_confusion(path: Path, names: Sequence[str], table: Array, title: str) -> None:
    """Draw a confusion matrix (K, K), a row for each annotated class, as shares of the row and as counts.

    Of many classes, those that are confused most are drawn. NothingToDraw: it is empty, or of one class.
    """
    if len(table) < 2 or not table.sum():
        raise NothingToDraw('there is one class' if table.sum() else 'nothing was annotated or predicted')
    wrong = table.sum(0) + table.sum(1) - 2 * np.diag(table)
    kept = np.sort(np.argsort(-wrong, kind='stable')[:MOST_CELLS])
    note = f' (the {MOST_CELLS} most confused of {len(table)})' if len(table) > MOST_CELLS else ''
    part = table[np.ix_(kept, kept)]
    share = part / np.maximum(table[kept].sum(1, keepdims=True), 1)
    labels = [class_labels(names)[k] for k in kept]

    def draw(figure: Any) -> None:
        for number, (axes, what) in enumerate(zip(figure.subplots(1, 2), ('share of the row', 'count'), strict=True)):
            axes.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
            axes.grid(visible=False)
            axes.set_xticks(range(len(kept)), labels, rotation=90, fontsize=8)
            axes.set_yticks(range(len(kept)), labels if not number else [''] * len(kept), fontsize=8)
            axes.set(xlabel='predicted', ylabel='' if number else 'annotated', title=what)
            for (i, j), value in np.ndenumerate(share) if len(kept) <= 12 else ():
                text = _short(part[i, j]) if number else f'{value:.2f}'
                color = 'white' if value > 0.5 else 'black'
                axes.text(j, i, text if part[i, j] else '', ha='center', va='center', fontsize=8, color=color)
        figure.suptitle(title + note)

    side = min(2.4 + 0.4 * len(kept), 8)
    save(path, draw, width=2 * side + 1, height=side)


def _short(count: float) -> str:
    return f'{count:.0f}' if count < 1e4 else f'{count / 1e3:.3g}k' if count < 1e6 else f'{count / 1e6:.3g}M'
