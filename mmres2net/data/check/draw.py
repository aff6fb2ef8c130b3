"""Draw samples of a data set with their annotations: boxes, class names, masks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mmres2net.data.check.report import Report
from mmres2net.data.formats.base import Annotation, Sample, Split, is_polygon, polygon_numbers, regular_file, rle_fault
from mmres2net.drawing import (
    GREY,
    WHITE,
    Array,
    Color,
    add_legend,
    class_color,
    draw_boxes,
    draw_label_map,
    draw_masks,
    resize_within,
)

LEAST, MOST = 720, 1200  # pixels on the longer side of a drawn image
RED = (255, 0, 0)  # a value without class


def draw_samples(split: Split, report: Report, folder: Path, count: int) -> list[Path]:
    """Draw ``count`` samples, spread evenly over the split, into ``folder``; return the files.

    Only images that the check could read are drawn, those with annotations where there are any.
    """
    readable = [s for s in split.samples if s.pixels is not None or os.path.abspath(s.image) in report.digests]
    annotated = [s for s in readable if s.mask or s.raw not in (None, [])] or readable
    step = max(len(annotated) / max(count, 1), 1)
    chosen = [annotated[int(i * step)] for i in range(min(count, len(annotated)))]
    folder.mkdir(parents=True, exist_ok=True)
    prefix = re.sub(r'\W+', '_', split.part).strip('_')
    files = []
    for i, sample in enumerate(chosen, 1):
        files.append(folder / f'{prefix}_{i:02d}.jpg')  # a later run replaces them
        Image.fromarray(draw_sample(split, sample)).save(files[-1], quality=92)
    return files


def draw_sample(split: Split, sample: Sample) -> Array:
    """Return a sample's image with its annotations, and a line below it that says what it is."""
    if sample.pixels is None:
        with Image.open(sample.image) as file:
            image = np.asarray((ImageOps.exif_transpose(file) if split.turns_images else file).convert('RGB'))
    else:
        image = np.asarray(sample.pixels)
    height, width = image.shape[:2]
    _, annotations, _ = split.parse(sample)
    title = f'{Path(sample.image).name or "image"}  {width}x{height}'
    shown = resize_within(image, LEAST, MOST)
    if split.mask_values and sample.mask:
        return _draw_mask_file(shown, split, sample.mask, title)
    if split.unit == 'images':
        return add_legend(shown, title, [(str(a.label), color_of(split.classes, a.label)) for a in annotations])
    shown = _draw_objects(shown, annotations, split.classes, shown.shape[1] / width)
    return add_legend(shown, f'{title}  {len(annotations)} object' + ('' if len(annotations) == 1 else 's'))


def color_of(classes: Sequence[str], label: str | None) -> Color:
    """Return the color of a class by name; gray for one that the config does not have."""
    return class_color(classes.index(label)) if label in classes else GREY


def _draw_objects(image: Array, annotations: Sequence[Annotation], classes: Sequence[str], scale: float) -> Array:
    """Draw objects with boxes in the original image's pixels, smaller ones on top."""
    boxed = [(a, a.box) for a in annotations if a.box is not None and np.isfinite(a.box).all()]
    boxed.sort(key=lambda pair: (pair[1][2] - pair[1][0]) * (pair[1][3] - pair[1][1]))
    colors = [color_of(classes, a.label) for a, _ in boxed]
    masks = [(i, _mask(a.segmentation, image.shape[:2], scale)) for i, (a, _) in enumerate(boxed) if a.segmentation]
    there = [(mask, colors[i]) for i, mask in masks if mask is not None]
    image = draw_masks(image, [mask for mask, _ in there], [color for _, color in there]) if there else image
    texts = [(a.label or 'no class') + (' (crowd)' if a.crowd else ' (ignored)' if a.ignored else '') for a, _ in boxed]
    return draw_boxes(image, [[v * scale for v in box] for _, box in boxed], texts, colors) if boxed else image


def _mask(segmentation: Any, shape: tuple[int, ...], scale: float) -> Array | None:
    """Return an object's mask (H, W) bool at the size of the drawing; None where it is not sound."""
    if isinstance(segmentation, dict):
        return _mask_of_runs(segmentation, shape, scale)
    layer = Image.new('1', (shape[1], shape[0]))
    for polygon in segmentation if isinstance(segmentation, list) else ():
        numbers = polygon_numbers(polygon)
        if numbers is not None and is_polygon(numbers):
            ImageDraw.Draw(layer).polygon([v * scale for v in numbers], fill=1)
    return np.asarray(layer)


def _mask_of_runs(rle: dict[str, Any], shape: tuple[int, ...], scale: float) -> Array | None:
    from pycocotools import mask as coco_mask  # beside mmdet, which alone has data sets with run lengths

    if rle_fault(rle) or [round(side * scale) for side in rle['size']] != list(shape):
        return None  # the report names it; only what has the size of the image is expanded
    compressed = coco_mask.frPyObjects(rle, *rle['size']) if isinstance(rle['counts'], list) else rle
    mask = Image.fromarray(coco_mask.decode(compressed).astype(bool))
    return np.asarray(mask.resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def _draw_mask_file(image: Array, split: Split, path: str, title: str) -> Array:
    """Draw the classes of a mask over an image, with a legend: ignored pixels are white, values without class red."""
    try:
        if split.read_mask is None:
            with Image.open(regular_file(path)) as file:
                values = np.asarray(file)
        else:
            values = split.read_mask(path)
    except (OSError, ValueError):  # the report names it
        return add_legend(image, title, [('no readable mask', GREY)])
    if values.ndim != 2:
        return add_legend(image, title, [('a color mask', GREY)])
    resized = Image.fromarray(values.astype(np.int32)).resize(
        (image.shape[1], image.shape[0]), Image.Resampling.NEAREST
    )
    present, labels = np.unique(np.asarray(resized), return_inverse=True)
    names = [split.mask_values.get(int(value)) for value in present]
    background = [name == split.classes[0] == 'background' for name in names]
    colors = [RED if name is None else color_of(split.classes, name) if name else WHITE for name in names]
    over = [None if back else color for back, color in zip(background, colors, strict=True)]
    entries = [
        (f'{value} no class' if name is None else name or 'ignored', GREY if back else color)
        for value, name, back, color in zip(present.tolist(), names, background, colors, strict=True)
    ]
    return add_legend(draw_label_map(image, labels.reshape(image.shape[:2]), over), title, entries)
