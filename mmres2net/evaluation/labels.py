"""What labels mean, that there are no others, and metrics by class as text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmres2net.errors import UserError
from mmres2net.text import format_table


def class_names(meta: Mapping[str, Any] | None) -> Sequence[str]:
    """Return the names of the labels 0, 1, ... from what a data set says of itself; a UserError if it names none."""
    classes = (meta or {}).get('classes')
    if not isinstance(classes, list | tuple):
        raise UserError('the data set names no classes (metainfo.classes), so labels have no meaning')
    return classes


def check_labels(labels: np.ndarray, classes: int, what: str = 'the model predicts') -> None:
    """Check that ``labels`` are 0 to ``classes`` - 1. A UserError names one that is not."""
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown):
        raise UserError(
            f'{what} label {int(unknown[0])}, but the data set has {classes} classes, 0 to {classes - 1}: '
            'check metainfo.classes and num_classes of the heads, for masks also ignore_index and reduce_zero_label'
        )


def class_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return ``rows`` as a table: fractions with three decimals, a dash for NaN and for -1, COCO's missing value."""

    def cell(value: float) -> str:
        return '-' if math.isnan(value) or value == -1 else f'{value:.3f}'

    return format_table([[cell(one) if isinstance(one, float) else one for one in row] for row in rows], header)
