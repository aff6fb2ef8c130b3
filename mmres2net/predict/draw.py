"""Predictions drawn into their image."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mmres2net.predict.facts import Facts

Array = npt.NDArray[Any]
Colour = tuple[int, int, int]
GOLDEN = 0.618033988749895  # steps of this share of the circle never come close to one another


def colour_of(facts: Facts, label: int) -> Colour:
    """Return the colour of a class: the file's, else one that its neighbours do not have."""
    if label < len(facts.palette):
        return facts.palette[label]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.75, 0.95)
    return int(red * 255), int(green * 255), int(blue * 255)


def name_of(facts: Facts, label: int) -> str:
    """Return the name of a class, or its number."""
    return facts.classes[label] if label < len(facts.classes) else f'class {label}'


def draw(image: Array, found: dict[str, Array], facts: Facts) -> Image.Image:
    """Return ``image`` (H, W, 3) with what was ``found`` in it: boxes and masks, or a colour for each class.

    A backbone's features are drawn as the strength of its last stage.
    """
    if facts.task == 'segmentation':
        return _blended(image, _coloured(found['classes'], facts))
    if facts.task == 'detection':
        return _detections(image, found, facts)
    strength = np.abs(found[facts.outputs[-1]]).mean(0)
    strength = (255 * (strength - strength.min()) / max(float(np.ptp(strength)), 1e-12)).astype(np.uint8)
    size = (image.shape[1], image.shape[0])
    return _blended(image, np.asarray(Image.fromarray(strength).resize(size).convert('RGB')))


def _coloured(classes: Array, facts: Facts) -> Array:
    table = np.array([colour_of(facts, label) for label in range(int(classes.max()) + 1)], np.uint8)
    return table[classes]


def _blended(image: Array, colours: Array) -> Image.Image:
    return Image.blend(Image.fromarray(image), Image.fromarray(colours), 0.6)


def _detections(image: Array, found: dict[str, Array], facts: Facts) -> Image.Image:
    pixels = image.copy()
    for mask, label in zip(found.get('masks', ()), found['labels'], strict=False):
        pixels[mask] = pixels[mask] // 2 + np.array(colour_of(facts, int(label)), np.uint8) // 2
    picture = Image.fromarray(pixels)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default()
    # The surest last: it lies above the others.
    for box, score, label in list(zip(found['boxes'], found['scores'], found['labels'], strict=True))[::-1]:
        colour = colour_of(facts, int(label))
        pen.rectangle([float(value) for value in box], outline=colour, width=2)
        text = f'{name_of(facts, int(label))} {score:.2f}'
        place = (float(box[0]) + 2, max(float(box[1]) - 12, 0))
        pen.rectangle(pen.textbbox(place, text, font=font), fill=colour)
        pen.text(place, text, fill=(0, 0, 0), font=font)
    return picture
