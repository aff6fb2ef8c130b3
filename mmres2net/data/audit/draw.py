"""Draw samples of a data set with everything that is annotated on them: boxes, class names, masks."""

from __future__ import annotations

import colorsys
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mmres2net.data.audit.image import decode_rle, sound_polygon
from mmres2net.data.audit.report import Report
from mmres2net.data.audit.split import Sample, Size, Split, Thing

LEAST, MOST = 720, 1200  # pixels on the longer side of a drawn image; smaller and larger ones are scaled
FONT_SIZE = 15
GREY = (160, 160, 160)  # what is annotated with no class of the config
Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]


def draw_samples(split: Split, report: Report, folder: Path, count: int) -> list[Path]:
    """Draw ``count`` samples, spread evenly over the split, into ``folder``; return the files.

    Only images that the audit could read are drawn, those with annotations where there are any.
    """
    readable = [s for s in split.samples if s.pixels is not None or os.path.abspath(s.image) in report.digests]
    annotated = [s for s in readable if s.mask or s.raw not in (None, [])] or readable
    step = max(len(annotated) / max(count, 1), 1)
    chosen = [annotated[int(i * step)] for i in range(min(count, len(annotated)))]
    folder.mkdir(parents=True, exist_ok=True)
    prefix = re.sub(r'\W+', '_', split.part).strip('_')
    files = []
    for i, sample in enumerate(chosen):
        files.append(folder / f'{prefix}_{i + 1:02d}.jpg')  # a later run replaces them
        draw_sample(split, sample).save(files[-1], quality=92)
    return files


def draw_sample(split: Split, sample: Sample) -> Image.Image:
    """Return a sample's image with its annotations, and a line below it that says what it is."""
    if sample.pixels is None:
        with Image.open(sample.image) as file:
            image = ImageOps.exif_transpose(file).convert('RGB')
    else:
        image = Image.fromarray(np.asarray(sample.pixels)).convert('RGB')
    size = image.size
    scale = min(max(LEAST / max(size), 1), MOST / max(size))
    _, things, _ = split.things(sample)
    name = Path(sample.image).name or 'image'
    title = f'{name}  {size[0]}x{size[1]}'
    if split.mask_values and sample.mask:
        image, present = _with_mask(image, split, sample.mask, scale)
        return _with_legend(image, title, present)
    image = _scaled(image, scale)
    if split.unit == 'images':
        names = [(str(t.label), colour_of(split.classes, t.label)) for t in things]
        return _with_legend(image, title, names)
    image = _with_things(image, things, split.classes, scale)
    return _with_legend(image, f'{title}  {len(things)} object' + ('' if len(things) == 1 else 's'), [])


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    if scale == 1:
        return image
    size = round(image.width * scale), round(image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST if scale >= 8 else Image.Resampling.LANCZOS)


@cache
def colour(index: int) -> Colour:
    """Return the colour of a class: hues a golden section apart, so that neighbours in the list differ most."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, (0.85, 0.6)[index // 12 % 2], (1.0, 0.8)[index % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def colour_of(classes: Sequence[str], label: str | None) -> Colour:
    """Return the colour of a class by name; grey for one that the config does not have."""
    return colour(classes.index(label)) if label in classes else GREY


# Objects


def _with_things(image: Image.Image, things: Sequence[Thing], classes: Sequence[str], scale: float) -> Image.Image:
    """Draw the larger objects first, so that the smaller ones stay in sight, and the names last."""
    boxed = ((thing, _frame(thing.box, scale, image.size)) for thing in things if thing.box is not None)
    framed = sorted(((thing, box) for thing, box in boxed if box is not None), key=lambda pair: -_area(pair[1]))
    for thing, _ in framed:
        if thing.segmentation:
            _draw_mask(image, thing, colour_of(classes, thing.label), scale)
    draw = ImageDraw.Draw(image)
    placed: list[Rectangle] = []
    for thing, (left, top, right, bottom) in framed:
        draw.rectangle((left - 1, top - 1, right, bottom), outline='black')
        width = 1 if thing.crowd else 2
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour_of(classes, thing.label), width=width)
    for thing, frame in reversed(framed):
        _label(draw, image.size, thing, frame, colour_of(classes, thing.label), placed)
    return image


def _frame(box: Rectangle, scale: float, size: Size) -> Rectangle | None:
    """Return a box in whole pixels of the drawn image, at least one, cut just outside it; None if not finite."""
    if not all(map(math.isfinite, box)):
        return None
    x1, x2 = (round(min(max(value * scale, -9), size[0] + 9)) for value in sorted(box[::2]))
    y1, y2 = (round(min(max(value * scale, -9), size[1] + 9)) for value in sorted(box[1::2]))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def _area(box: Rectangle) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _draw_mask(image: Image.Image, thing: Thing, shade: Colour, scale: float) -> None:
    """Draw an instance's mask, half transparent, with its edge."""
    layer = Image.new('L', image.size)
    draw = ImageDraw.Draw(layer)
    if isinstance(thing.segmentation, dict):
        layer = _rle_layer(thing.segmentation, image.size)
    for polygon in thing.segmentation if isinstance(thing.segmentation, list) else ():
        points = sound_polygon(polygon)
        if points is not None:
            draw.polygon((points * scale).ravel().tolist(), fill=80, outline=255, width=2)
    image.paste(Image.new('RGB', image.size, shade), mask=layer)


def _rle_layer(rle: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    try:
        mask = decode_rle(rle)
    except Exception:  # the report names it
        return Image.new('L', size)
    return Image.fromarray(mask.astype(np.uint8) * 80).resize(size, Image.Resampling.NEAREST)


def _label(
    draw: ImageDraw.ImageDraw, size: Size, thing: Thing, frame: Rectangle, shade: Colour, placed: list[Rectangle]
) -> None:
    """Write the class name at the first place around the box that no other name takes."""
    marks = [mark for mark, there in (('crowd', thing.crowd), ('difficult', thing.difficult)) if there]
    text = (thing.label or 'no class') + (f' ({", ".join(marks)})' if marks else '')
    x1, y1, x2, y2 = frame
    width, height = draw.textlength(text, font=_font()) + 6, FONT_SIZE + 5
    columns, rows = (x1, x2 - width), (y1 - height - 1, y1 + 1, y2 + 1, y2 - height - 1, (y1 + y2 - height) / 2)
    right, bottom = max(size[0] - width, 0), max(size[1] - height, 0)
    places = [(min(max(x, 0), right), min(max(y, 0), bottom)) for y in rows for x in columns]
    free = [(x, y) for x, y in places if not any(_meet((x, y, x + width, y + height), other) for other in placed)]
    x, y = (free or places)[0]
    placed.append((x, y, x + width, y + height))
    _tag(draw, (x, y), text, shade)


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@cache
def _font() -> Any:
    return ImageFont.load_default(size=FONT_SIZE)


def _tag(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, shade: Colour) -> float:
    """Write on a patch of the class's colour, in black or white, whichever reads better; return the patch's width."""
    x, y = place
    width = draw.textlength(text, font=_font()) + 6
    draw.rectangle((x, y, x + width, y + FONT_SIZE + 4), fill=shade)
    bright = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 130
    draw.text((x + 3, y + 1), text, font=_font(), fill='black' if bright else 'white')
    return width


# Semantic masks


def _with_mask(
    image: Image.Image, split: Split, path: str, scale: float
) -> tuple[Image.Image, list[tuple[str, Colour]]]:
    """Blend the classes of a mask over an image; return it with the names and colours that occur.

    Ignored pixels are white, values without class red.
    """
    try:
        if split.read_mask is None:
            with Image.open(path) as file:
                mask = np.asarray(file)
        else:
            mask = split.read_mask(path)
    except (OSError, ValueError):  # the report names it
        return _scaled(image, scale), [('no readable mask', GREY)]
    if mask.ndim != 2:
        return _scaled(image, scale), [('a colour mask', GREY)]
    image = _scaled(image, scale)
    mask = np.asarray(Image.fromarray(mask.astype(np.int32)).resize(image.size, Image.Resampling.NEAREST))
    layer, alpha = np.zeros((*mask.shape, 3), np.uint8), np.zeros(mask.shape, np.float32)
    present = []
    for value in np.unique(mask).tolist():
        name = split.mask_values.get(value)
        shade = (255, 0, 0) if name is None else (255, 255, 255) if not name else colour_of(split.classes, name)
        background = name is not None and name == split.classes[0] == 'background'
        layer[mask == value], alpha[mask == value] = shade, 0 if background else 0.5
        present.append((f'{value} no class' if name is None else name or 'ignored', GREY if background else shade))
    edge = (mask != np.roll(mask, 1, 0)) | (mask != np.roll(mask, 1, 1))
    edge[0], edge[:, 0] = False, False
    alpha[edge & (alpha > 0)] = 0.9
    # Over grey, so that a class has the colour of the legend whatever the colour of the object.
    grey = np.asarray(image.convert('L').convert('RGB'))
    base = np.where(alpha[..., None] > 0, grey, np.asarray(image))
    blended = base * (1 - alpha[..., None]) + layer * alpha[..., None]
    return Image.fromarray(blended.round().astype(np.uint8)), present


def _with_legend(image: Image.Image, title: str, names: Sequence[tuple[str, Colour]]) -> Image.Image:
    """Put a title and coloured class names below an image."""
    line = FONT_SIZE + 9
    probe = ImageDraw.Draw(image)
    rows: list[list[tuple[str, Colour]]] = [[]]
    used = 0.0
    for name, shade in names:
        width = probe.textlength(name, font=_font()) + 12
        if rows[-1] and used + width > image.width:
            rows.append([])
            used = 0
        rows[-1].append((name, shade))
        used += width
    rows = [row for row in rows if row]
    sheet = Image.new('RGB', (image.width, image.height + line * (1 + len(rows))), (24, 24, 24))
    sheet.paste(image)
    draw = ImageDraw.Draw(sheet)
    draw.text((4, image.height + 4), title, font=_font(), fill='white')
    for i, row in enumerate(rows, start=1):
        x = 4.0
        for name, shade in row:
            x += _tag(draw, (x, image.height + line * i + 2), name, shade) + 6
    return sheet
