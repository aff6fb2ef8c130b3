"""What an exported file says about itself: JSON beside the graph, where each format has a place for metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmres2net.errors import UserError

KEY = 'mmres2net'
VERSION = 2  # raise it with every change of what a runner has to know
TASKS = ('backbone', 'classification', 'segmentation', 'detection')
TRANSFORMS = ('Resize', 'ResizeEdge', 'CenterCrop')


@dataclass(frozen=True)
class ExportMetadata:
    """What a runner has to know about a file.

    Args:
        task: One of :data:`TASKS`. The input is always ``image``, (N, 3, H, W) uint8 RGB.
        outputs: Names of the outputs, in order.
        source: The config and the weights that it was exported from.
        classes: Class names; empty where they are unknown.
        palette: A color (red, green, blue) of each class, or empty.
        batch: Whether N may be other than 1.
        size: Height and width, if the file takes images of this size only.
        transforms: Geometric transforms of the test pipeline, see :func:`mmres2net.predict.images.apply_transforms`.
        apply_exif: Whether images are turned by their EXIF orientation.
        fill: The pixel that images are padded with where ``size`` is fixed: the mean of each channel.
        strides: Strides of a backbone's outputs.
        align_corners: How a segmentor's logits are resized.
        score_threshold: A detector gives no detections below this score.
        mask_threshold: The probability from which on a pixel belongs to an object.
    """

    task: str
    outputs: tuple[str, ...]
    source: str = ''
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    batch: bool = True
    size: tuple[int, int] | None = None
    transforms: tuple[dict[str, Any], ...] = ()
    apply_exif: bool = True
    fill: tuple[int, int, int] = (0, 0, 0)
    strides: tuple[int, ...] = ()
    align_corners: bool = False
    score_threshold: float = 0.0
    mask_threshold: float = 0.5

    def to_json(self) -> str:
        """Return the text that is written into a file."""
        return json.dumps({'version': VERSION, **asdict(self)})

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where the name is unknown."""
        return self.classes[label] if 0 <= label < len(self.classes) else f'class {label}'


def parse_metadata(text: str | None, path: Path) -> ExportMetadata:
    """Return the metadata in the text of a file.

    Args:
        text: The text; None where the file has none.
        path: The file, for messages.

    Raises:
        UserError: The file is not an export of mmres2net, damaged, or of another version.
    """
    if not text:
        raise UserError(f'{path} has no metadata of mmres2net; export it with: mmres2net export CONFIG CHECKPOINT')
    try:
        content = json.loads(text)
        version = content.pop('version')
        if version == VERSION:
            metadata = ExportMetadata(**{key: _frozen(value) for key, value in content.items()})
            _check(metadata)
            return metadata
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'{path}: the metadata of this file is damaged; export it again') from error
    raise UserError(f'{path} is of format version {version!r}, but this program reads {VERSION}; export it again')


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


def _check(metadata: ExportMetadata) -> None:
    """Check what the runner relies on.

    Raises:
        ValueError: A field of another form.
    """
    names = all(isinstance(name, str) for name in (*metadata.outputs, *metadata.classes))
    sizes = [size for size in (metadata.size, *metadata.palette, metadata.fill) if size is not None]
    if metadata.task not in TASKS or not names or not all(isinstance(v, int) for size in sizes for v in size):
        raise ValueError
    if not all(transform['type'] in TRANSFORMS for transform in metadata.transforms):
        raise ValueError
    float(metadata.score_threshold), float(metadata.mask_threshold)
