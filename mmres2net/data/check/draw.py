"""Draw samples of a data set with their annotations: boxes, class names, masks."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mmres2net import drawing
from mmres2net.data.check.report import Report
from mmres2net.data.formats.base import Annotation, Sample, Split, is_polygon, polygon_numbers, regular_file, rle_fault
from mmres2net.drawing import GREY, WHITE, Array, Color, add_legend

LEAST, MOST = 720, 1200  # pixels on the longer side of a drawn image
RED = (255, 0, 0)  # a value without class


def draw_samples(report: Report, folder: Path, count: int) -> list[Path]:
    """Draw ``count`` samples, at even distances in the split, into ``folder``; return the files.

    Only images that the check could read are drawn, those with annotations where there are any.
    """
    split = report.split
    readable = [s for s in split.samples if s.pixels is not None or os.path.abspath(s.image) in report.digests]
    annotated = [s for s in readable if s.mask or s.raw not in (None, [])] or readable
    step = max(len(annotated) / max(count, 1), 1)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = re.sub(r'\W+', '_', split.part).strip('_')
    files = []
    for i in range(min(count, len(annotated))):
        files.append(folder / f'{prefix}_{i + 1:02d}.jpg')  # a later run replaces them
        Image.fromarray(draw_sample(split, annotated[int(i * step)])).save(files[-1], quality=92)
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
    shown = drawing.resize_within(image, LEAST, MOST)
    if split.mask_values and sample.mask:
        return _draw_mask_file(shown, split, sample.mask, title)
    if split.unit == 'images':
        return add_legend(shown, title, [(str(a.label), color_of(split.classes, a.label)) for a in annotations])
    shown = _draw_objects(shown, annotations, split.classes, shown.shape[1] / width)
    return add_legend(shown, f'{title}  {len(annotations)} object' + 's' * (len(annotations) != 1))


def color_of(classes: Sequence[str], label: str | None) -> Color:
    """Return the color of a class by name; gray for one that the config does not have."""
    return drawing.class_color(classes.index(label)) if label in classes else GREY


def _draw_objects(image: Array, annotations: Sequence[Annotation], classes: Sequence[str], scale: float) -> Array:
    """Draw objects with boxes in the original image's pixels, smaller ones on top."""
    boxed = [(a, np.array(a.box) * scale) for a in annotations if a.box is not None and np.isfinite(a.box).all()]
    boxed.sort(key=lambda pair: np.prod(pair[1][2:] - pair[1][:2]))
    if not boxed:
        return image
    colors = [color_of(classes, a.label) for a, _ in boxed]
    masks = [_mask(a.segmentation, image.shape[:2], scale) for a, _ in boxed]
    there = [(mask, color) for mask, color in zip(masks, colors, strict=True) if mask is not None]
    if there:
        image = drawing.draw_masks(image, [mask for mask, _ in there], [color for _, color in there])
    texts = [(a.label or 'no class') + (' (crowd)' if a.crowd else ' (ignored)' if a.ignored else '') for a, _ in boxed]
    return drawing.draw_boxes(image, [box.tolist() for _, box in boxed], texts, colors)


def _mask(segmentation: Any, shape: tuple[int, ...], scale: float) -> Array | None:
    """Return an object's mask (H, W) bool at the size of the drawing; None where there is no sound one."""
    size = shape[1], shape[0]
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask  # beside mmdet, which alone has data sets with run lengths

        if rle_fault(segmentation) or [round(side * scale) for side in segmentation['size']] != list(shape):
            return None  # the report names it; only what has the size of the image is expanded
        rle = segmentation
        rle = coco_mask.frPyObjects(rle, *rle['size']) if isinstance(rle['counts'], list) else rle
        mask = Image.fromarray(coco_mask.decode(rle).astype(bool))
        return np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    layer = Image.new('1', size)
    polygons = [polygon_numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else []
    for numbers in polygons:
        if numbers is not None and is_polygon(numbers):
            ImageDraw.Draw(layer).polygon([v * scale for v in numbers], fill=1)
    return np.asarray(layer) if polygons else None


def _draw_mask_file(image: Array, split: Split, path: str, title: str) -> Array:
    """Draw the classes of a mask over an image, with a legend: ignored pixels are white, values without class red."""
    try:
        values = np.asarray(Image.open(regular_file(path))) if split.read_mask is None else split.read_mask(path)
    except (OSError, ValueError):  # the report names it
        return add_legend(image, title, [('no readable mask', GREY)])
    if values.ndim != 2:
        return add_legend(image, title, [('a color mask', GREY)])
    size = image.shape[1], image.shape[0]
    resized = Image.fromarray(values.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    present, labels = np.unique(np.asarray(resized), return_inverse=True)
    colors: list[Color | None] = []
    entries: list[tuple[str, Color]] = []
    for value in present.tolist():
        name = split.mask_values.get(value)
        is_ground = name == split.classes[0] == 'background'
        color = RED if name is None else color_of(split.classes, name) if name else WHITE
        colors.append(None if is_ground else color)
        entries.append((f'{value} no class' if name is None else name or 'ignored', GREY if is_ground else color))
    return add_legend(drawing.draw_label_map(image, labels.reshape(image.shape[:2]), colors), title, entries)
