"""What an audit reads of a data set before it opens any image: its samples, and how their annotations are parsed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmres2net.data.audit.report import Finding
from mmres2net.errors import UserError

Box = tuple[float, float, float, float]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotated object: ``box`` is x1, y1, x2, y2 in pixels, half-open; ``label`` None: of no class at all."""

    where: str
    label: str | None
    box: Box | None = None
    segmentation: Any = None
    crowd: bool = False
    difficult: bool = False


@dataclass(slots=True)
class Sample:
    """One image of a split with what its annotations say: ``raw`` in their own form, ``size`` as (width, height)."""

    image: str
    size: Size | None = None
    raw: Any = None
    mask: str = ''
    pixels: Any = None  # (H, W, 3) RGB where the data set has no image files


Parsed = tuple[Size | None, list[Thing], list[Finding]]


def _nothing(sample: Sample) -> Parsed:
    return sample.size, [], []


@dataclass
class Split:
    """A data set of a config, read but for its images; ``things`` parses the annotations of one sample."""

    part: str
    source: str
    dataset: str
    classes: tuple[str, ...] = ()
    unit: str = 'objects'
    samples: list[Sample] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    things: Callable[[Sample], Parsed] = _nothing
    mask_values: dict[int, str] = field(default_factory=dict)  # value -> class name; '' is ignored
    # The data set's own reader of a mask file: labels (H, W) or a UserError; None: the values in it are the labels.
    read_mask: Callable[[str], np.ndarray] | None = None
    image_fault: Callable[[str], str] | None = None  # the data set's own check of a readable image file
    # Whether the names in the annotations are of the config's vocabulary, where that shows after reading all of them.
    check_names: Callable[[Sequence[str]], None] | None = None


def misfit(source: str, check: Callable[[], None]) -> list[Finding]:
    """Return what a check of classes says against a split, as a finding."""
    try:
        check()
    except UserError as error:
        return [Finding('classes do not fit', source, str(error))]
    return []
