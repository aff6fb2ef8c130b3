"""Results as text: the table that closes a run."""

from __future__ import annotations

from collections.abc import Mapping


def metric_table(metrics: Mapping[str, float], title: str) -> str:
    """Return ``metrics`` as an aligned table of names and values under ``title``.

    Figures are printed as the evaluator gives them: COCO's and VOC's as fractions, -1 where nothing is of that kind.
    """
    if not metrics:
        return f'{title}: no metrics'
    width = max(len(name) for name in metrics)
    rows = [f'  {name:<{width}}  {value:.3f}' for name, value in metrics.items()]
    return '\n'.join([title, *rows])
