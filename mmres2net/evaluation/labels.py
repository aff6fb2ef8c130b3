"""What labels mean, and that there are no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmres2net.errors import UserError


def class_names(meta: Mapping[str, Any] | None) -> Sequence[str]:
    """Return the names of the labels 0, 1, ... from what a data set says of itself.

    Raises:
        UserError: It names none.
    """
    classes = (meta or {}).get('classes')
    if not isinstance(classes, list | tuple):
        raise UserError('the data set names no classes (metainfo.classes), so labels have no meaning')
    return classes


def check_labels(labels: np.ndarray, classes: int, what: str = 'the model predicts') -> None:
    """Check that ``labels`` are 0 to ``classes`` - 1.

    Raises:
        UserError: One is not.
    """
    unknown = labels[(labels < 0) | (labels >= classes)]
    if len(unknown):
        raise UserError(
            f'{what} label {int(unknown[0])}, but the data set has {classes} classes, 0 to {classes - 1}: '
            'check metainfo.classes and num_classes of the heads, for masks also ignore_index and reduce_zero_label'
        )
