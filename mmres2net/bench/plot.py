"""A picture of the ratios: a bar for each contender, with the spread of its turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WIDTH, BAR, MARGIN, DPI = 9.0, 0.32, 1.1, 120  # inches, but for dots per inch
OURS, PEERS = '#2f6db3', '#9a9a9a'


def draw(path: Path, panels: Sequence[Mapping[str, Any]], label: str) -> None:
    """Draw ``panels`` below each other into a picture file.

    Args:
        path: The file; its suffix says the format.
        panels: Each a ``title`` and ``bars``, each of these with ``name``, ``ratio``, ``low``, ``high`` and ``ours``.
        label: What the ratios are.
    """
    # Imported where it is needed: only those who ask for a picture wait for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [max(len(panel['bars']), 1) * BAR + MARGIN for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, panel, label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axis: Any, panel: Mapping[str, Any], label: str) -> None:
    bars = panel['bars']
    ratios = [bar['ratio'] for bar in bars]
    spread = [
        [max(bar['ratio'] - bar['low'], 0) for bar in bars],
        [max(bar['high'] - bar['ratio'], 0) for bar in bars],
    ]
    colours = [OURS if bar['ours'] else PEERS for bar in bars]
    places = range(len(bars))
    axis.barh(places, ratios, xerr=spread, color=colours, ecolor='black', capsize=2, height=0.7)
    axis.set_yticks(places, [bar['name'] for bar in bars], fontsize=8)
    axis.invert_yaxis()
    axis.tick_params(axis='x', labelsize=8)
    axis.axvline(1, color='black', linewidth=0.8, linestyle=':')
    right = max([bar['high'] for bar in bars], default=1)
    axis.set_xlim(0, right * 1.12)
    for place, bar in zip(places, bars, strict=True):
        axis.text(bar['high'] + right * 0.01, place, f'{bar["ratio"]:.2f}', va='center', fontsize=8)
    axis.set_xlabel(label, fontsize=8)
    axis.set_title(panel['title'], fontsize=9, loc='left')
