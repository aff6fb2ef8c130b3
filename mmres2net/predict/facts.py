"""What an exported file says of itself: a text beside the graph, in the place that the format has for such."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmres2net.errors import UserError

KEY = 'mmres2net'
VERSION = 1  # raise it with every change of what a runner has to know
TASKS = ('backbone', 'segmentation', 'detection')


@dataclass(frozen=True)
class Facts:
    """What a runner has to know of a file.

    Args:
        task: One of :data:`TASKS`; the image is always (N, 3, H, W) uint8, RGB.
        outputs: Names of the results, in order.
        source: The config and the weights that it was made from.
        classes: Names of the classes; none where they are not known.
        palette: A colour (red, green, blue) of each class, or none.
        batch: Whether N may be other than 1.
        size: Height and width, where the file takes images of this size alone.
        scale: Largest width and height to which test images are resized; none: they are not.
        keep_ratio: Whether that keeps the ratio of the sides.
        fill: What an image is filled up with where ``size`` is fixed: the mean of each channel.
        strides: Of a backbone's outputs.
        align_corners: How a segmentor's logits are resized.
        score_threshold: Below it a detector gives nothing.
        mask_threshold: From it on a pixel belongs to the object.
    """

    task: str
    outputs: tuple[str, ...]
    source: str = ''
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    batch: bool = True
    size: tuple[int, int] | None = None
    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    fill: tuple[int, int, int] = (0, 0, 0)
    strides: tuple[int, ...] = ()
    align_corners: bool = False
    score_threshold: float = 0.0
    mask_threshold: float = 0.5

    def as_text(self) -> str:
        """Return the text that goes into a file."""
        return json.dumps({'version': VERSION, **asdict(self)})


def read_facts(text: str | None, path: Path) -> Facts:
    """Return the facts in the text of a file.

    Args:
        text: The text; None where the file has none.
        path: The file, for messages.

    Raises:
        UserError: The file is not an export of ours, or of a later version.
    """
    if not text:
        raise UserError(f'{path} is no export of mmres2net: it does not say what it is; make one with tools/export.py')
    try:
        content = json.loads(text)
        version = content.pop('version')
        if version == VERSION:
            return Facts(**{key: _frozen(value) for key, value in content.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{path}: what the file says of itself cannot be understood; export it again') from error
    raise UserError(f'{path} is of version {version!r}, this program reads version {VERSION}; export it again')


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value
