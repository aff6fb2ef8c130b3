"""A data set of the user, whatever its layout: what it is, its splits, and the standard form that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmres2net.data.formats.base import Size, Split
from mmres2net.drawing import Color

TASKS = ('detection', 'instances', 'segmentation', 'classification')


@dataclass(frozen=True)
class OwnSplit:
    """One split of own data.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        images: How many images it has, those without annotations included.
        counts: Annotations by class name, every class in label order, also those without any: objects for detection,
            images for classification, pixels for segmentation (of the masks that were read so far: a sample after
            :func:`recognize`, all after :func:`write_standard`).
        annotation: The file in standard form, once it is written; before that the source.
        size: The median (width, height) of its images in pixels, from the headers of a sample.
        source: The split as the reader of its format gives it, for checks, drawing and conversion.
    """

    name: str
    images: int
    counts: Mapping[str, int]
    annotation: Path
    size: Size
    source: Split = field(repr=False, compare=False)


@dataclass(frozen=True)
class OwnData:
    """Own data: where they are, what they are, their classes and splits.

    Attributes:
        path: What the user named: a folder, a data file or an annotation file.
        format: ``coco``, ``voc``, ``yolo``, ``folders`` or ``masks``.
        task: ``detection``, ``instances`` (boxes and masks), ``segmentation`` (also salient objects: two classes, the
            first is the background) or ``classification``.
        root: The folder that the image paths in the standard form are relative to.
        classes: Names in label order.
        palette: A color for each class.
        splits: By name: ``train`` and ``val`` always, ``test`` where there is one.
        notes: What was recognized, how it was split and what was left out, in sentences.
    """

    path: Path
    format: str
    task: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    splits: Mapping[str, OwnSplit]
    notes: tuple[str, ...]

    def as_text(self) -> str:
        """Return what was recognized for a terminal: the notes, and a table of images and annotations by class."""
        raise NotImplementedError


def recognize(path: str | Path, *, task: str | None = None, seed: int = 0) -> OwnData:
    """Recognize the data set in a folder, behind a data file or in a COCO file.

    Args:
        path: A folder, a data file (YAML; see :mod:`mmres2net.data.own.data_file`) or a COCO file (JSON).
        task: What the data are wanted for, one of :data:`TASKS`: it decides where a folder holds annotations for
            several. ``detection`` takes data of instances. None: whatever the folder holds.
        seed: Of the split where there is no validation set; a data file may name another.

    Raises:
        UserError: Nothing, or more than one thing, is recognized, or nothing for ``task``. The message shows the data
            file to write, filled in as far as it is known.
    """
    raise NotImplementedError


def write_standard(data: OwnData, folder: Path) -> OwnData:
    """Write ``data`` in the standard form into ``folder`` and return them with ``annotation`` pointing at these files.

    The files are ``train``, ``val`` and, where there is one, ``test``, with the suffix

    - ``.json`` for detection and instances: COCO, integer ids from 1, categories with the ids 1, 2, ... in label order,
      ``file_name`` relative to ``data.root``; difficult objects of VOC are crowds, so that they are neither trained on
      nor counted;
    - ``.txt`` for segmentation: a line ``IMAGE<tab>MASK`` for each image, as ``mmres2net.PairedSegDataset`` reads it;
      image paths are relative to ``data.root``, masks are single-channel class indices, 255 is ignored: those of the
      source (a path relative to ``data.root``), or converted below ``folder/masks`` (an absolute path);
    - ``.txt`` for classification: a line ``IMAGE INDEX``, as mmpretrain's ``CustomDataset`` reads it with ``ann_file``.

    Files are replaced atomically. Where neither the data nor this form have changed, the files that are there are used.

    Raises:
        UserError: An annotation that cannot be converted (the message lists the first ones), or a folder that cannot be
            written to.
    """
    raise NotImplementedError
