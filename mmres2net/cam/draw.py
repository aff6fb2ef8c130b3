"""Maps drawn over their image, side by side: lighter colours where the map is stronger, as in figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mmres2net.cam.view import Window

Array = npt.NDArray[Any]
LEAST, MOST = 320, 640  # pixels of a panel's longer side
NARROWEST = 250  # a panel must hold its title
GAP, LINE, FONT = 12, 19, 15
COLOURS = 'inferno'  # from black to a light yellow, evenly in lightness; also to the colour-blind
SHARE = 0.5  # of the colour in a pixel, the rest is the image
DIM = 0.35  # of the brightness that is left of what the network does not see
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Args:
        title: Its lines, which are wrapped.
        strength: The map, (H, W) in [0, 1]; None: the image alone.
        seen: The part of the image that the network sees.
        box: (left, top, right, bottom) in pixels of the image, drawn into it.
    """

    title: Sequence[str]
    strength: Array | None = None
    seen: Window | None = None
    box: tuple[float, float, float, float] | None = None


def row_of(image: Array, panels: Sequence[Panel], footer: str) -> Image.Image:
    """Return ``panels`` of ``image`` (H, W, 3) side by side with their titles, and a scale of the colours below."""
    factor = _factor(image.shape[0], image.shape[1])
    pictures = [_picture(image, panel, factor) for panel in panels]
    width = max(pictures[0].width, NARROWEST)
    titles = [[line for text in panel.title for line in _wrapped(text, width)] for panel in panels]
    top = GAP + LINE * max(len(lines) for lines in titles) + GAP // 2
    bottom = top + pictures[0].height
    sheet = Image.new('RGB', (GAP + (width + GAP) * len(panels), bottom + GAP + LINE + GAP), WHITE)
    for index, (picture, lines) in enumerate(zip(pictures, titles, strict=True)):
        left = GAP + (width + GAP) * index
        sheet.paste(picture, (left + (width - picture.width) // 2, top))
        _write(sheet, lines, left, GAP)
    _scale(sheet, footer, bottom + GAP)
    return sheet


def _factor(height: int, width: int) -> float:
    longer = max(height, width)
    return min(max(longer, LEAST), MOST) / longer


def _picture(image: Array, panel: Panel, factor: float) -> Image.Image:
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    plain = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    picture = plain if panel.strength is None else _covered(plain, panel.strength)
    if panel.seen is not None and not panel.seen.is_all_of((image.shape[0], image.shape[1])):
        picture = _framed(picture, plain, panel.seen, factor)
    if panel.box is not None:
        pen = ImageDraw.Draw(picture)
        corners = [value * factor for value in panel.box]
        _outline(pen, corners, BLACK, 4)
        _outline(pen, [corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], WHITE, 2)
    return picture


def _covered(picture: Image.Image, strength: Array) -> Image.Image:
    """Return ``picture`` under the colours of ``strength``, which is brought to its size."""
    resized = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR))
    return Image.blend(picture, Image.fromarray(coloured(resized)), SHARE)


def coloured(strength: Array) -> Array:
    """Return the colours (H, W, 3) uint8 of values (H, W) in [0, 1]."""
    from matplotlib import colormaps

    table = (np.array(colormaps[COLOURS](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)
    return table[(np.clip(strength, 0, 1) * 255).round().astype(np.uint8)]


def _framed(picture: Image.Image, plain: Image.Image, seen: Window, factor: float) -> Image.Image:
    """Return ``picture`` inside of ``seen`` and a line around it, outside a darker ``plain``."""
    box = [seen.left * factor, seen.top * factor, (seen.left + seen.width) * factor, (seen.top + seen.height) * factor]
    corners = [round(value) for value in box]
    dark = plain.point(lambda value: value * DIM)
    dark.paste(picture.crop((corners[0], corners[1], corners[2], corners[3])), (corners[0], corners[1]))
    _outline(ImageDraw.Draw(dark), [corners[0], corners[1], corners[2] - 1, corners[3] - 1], WHITE, 1)
    return dark


def _outline(pen: ImageDraw.ImageDraw, corners: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
    """Draw a rectangle; of one that is thinner than its line, the line."""
    left, top, right, bottom = corners
    pen.rectangle([left, top, max(right, left), max(bottom, top)], outline=colour, width=width)


def _font() -> Any:
    return ImageFont.load_default(FONT)


def _wrapped(text: str, width: int) -> list[str]:
    """Return ``text`` in lines no wider than ``width``, broken at blanks, and within a word that is wider itself."""
    font, lines = _font(), ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = word
        while font.getlength(lines[-1]) > width:
            fits = next(n for n in range(len(lines[-1]) - 1, 0, -1) if n == 1 or font.getlength(lines[-1][:n]) <= width)
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines


def _write(sheet: Image.Image, lines: Sequence[str], left: int, top: int) -> None:
    pen, font = ImageDraw.Draw(sheet), _font()
    for number, line in enumerate(lines):
        pen.text((left, top + LINE * number), line, fill=BLACK, font=font)


def _scale(sheet: Image.Image, footer: str, top: int) -> None:
    """Write ``footer`` and draw the colours from weak to strong, as they lie over a grey image."""
    width = 110
    bar = np.repeat(coloured(np.linspace(0, 1, width)[None]), 12, 0)
    right = sheet.width - GAP - int(_font().getlength('strong')) - 6
    sheet.paste(
        Image.blend(Image.new('RGB', (width, 12), (128, 128, 128)), Image.fromarray(bar), SHARE),
        (right - width, top + 4),
    )
    _write(sheet, ['strong'], right + 6, top)
    weak = right - width - 6 - int(_font().getlength('weak'))
    _write(sheet, ['weak'], weak, top)
    _write(sheet, _wrapped(footer, weak - 2 * GAP)[:1], GAP, top)
