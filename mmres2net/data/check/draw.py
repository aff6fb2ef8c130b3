"""Draw samples of a data set with their annotations: boxes, class names, masks."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mmres2net import drawing
from mmres2net.data.check.job import Report
from mmres2net.data.formats.base import Annotation, Sample, Split, is_polygon, polygon_numbers, regular_file, rle_fault
from mmres2net.drawing import GREY, WHITE, Array, Color, add_legend

LEAST, MOST = 720, 1200  # pixels on the longer side of a drawn image
RED = (255, 0, 0)  # a value without class


def draw_samples(report: Report, folder: Path, count: int) -> list[Path]:
    """Draw ``count`` samples at even distances, of images that can be read, into ``folder``; return the files."""
    split = report.split
    broken = {one.where for one in report.findings if one.kind in ('missing image', 'unreadable image')}
    readable = [sample for sample in split.samples if sample.image not in broken]
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
        return add_legend(
            shown, title, [(name_of(split.classes, a.label), color_of(split.classes, a.label)) for a in annotations]
        )
    shown = _draw_objects(shown, annotations, split.classes, shown.shape[1] / width)
    return add_legend(shown, f'{title}  objects: {len(annotations)}')


def name_of(classes: Sequence[str], label: str | None) -> str:
    """Return how the name of a class is drawn."""
    return drawing.legible(label, classes.index(label)) if label and label in classes else label or 'no class'


def color_of(classes: Sequence[str], label: str | None) -> Color:
    """Return the color of a class by name; gray for one that the config does not have."""
    return drawing.class_color(classes.index(label)) if label in classes else GREY


def _draw_objects(image: Array, annotations: Sequence[Annotation], classes: Sequence[str], scale: float) -> Array:
    boxed = [(a, np.array(a.box) * scale) for a in annotations if a.box is not None and np.isfinite(a.box).all()]
    boxed.sort(key=lambda pair: np.prod(pair[1][2:] - pair[1][:2]))
    masks = [(_mask(a.segmentation, image.shape[:2], scale), color_of(classes, a.label)) for a, _ in boxed]
    if there := [(mask, color) for mask, color in masks if mask is not None]:
        image = drawing.draw_masks(image, [mask for mask, _ in there], [color for _, color in there])
    texts = [
        name_of(classes, a.label) + (' (crowd)' if a.crowd else ' (ignored)' if a.ignored else '') for a, _ in boxed
    ]
    return drawing.draw_boxes(image, [box.tolist() for _, box in boxed], texts, [color for _, color in masks])


def _mask(segmentation: Any, shape: tuple[int, ...], scale: float) -> Array | None:
    size = shape[1], shape[0]
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask  # beside mmdet, which alone has data sets with run lengths

        if rle_fault(segmentation) or [round(side * scale) for side in segmentation['size']] != list(shape):
            return None  # the report names it; only what has the size of the image is expanded
        listed = isinstance(segmentation['counts'], list)
        rle = coco_mask.frPyObjects(segmentation, *segmentation['size']) if listed else segmentation
        return np.asarray(Image.fromarray(coco_mask.decode(rle).astype(bool)).resize(size, Image.Resampling.NEAREST))
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
        size = image.shape[1], image.shape[0]
        resized = Image.fromarray(values.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    except (OSError, ValueError, TypeError):  # also of a mask in colors; the report names it
        return add_legend(image, title, [('no readable mask', GREY)])
    present, labels = np.unique(np.asarray(resized), return_inverse=True)
    names = [split.mask_values.get(value) for value in present.tolist()]
    colors = [RED if name is None else color_of(split.classes, name) if name else WHITE for name in names]
    texts = [
        f'{v} no class' if name is None else name_of(split.classes, name) if name else 'ignored'
        for v, name in zip(present, names, strict=True)
    ]
    ground = [name == split.classes[0] == 'background' for name in names]  # it stays visible
    entries = [(t, GREY if g else c) for t, c, g in zip(texts, colors, ground, strict=True)]
    shown = [None if g else c for c, g in zip(colors, ground, strict=True)]
    return add_legend(drawing.draw_label_map(image, labels.reshape(image.shape[:2]), shown), title, entries)
