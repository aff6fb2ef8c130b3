"""Drawing on images with numpy and Pillow: boxes with labels, masks, label maps, heat maps, legends, sheets.

Images are (H, W, 3) uint8 arrays in RGB; inputs stay unchanged. Text and lines grow with the image.
"""

import colorsys
import math
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Array = npt.NDArray[Any]
Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (160, 160, 160)
GOLDEN_RATIO = 0.618034  # hues of consecutive classes are this share of the circle apart
TEXT_SHARE, MIN_FONT = 0.024, 12  # font size relative to the square root of the image's area; in pixels at least


def class_color(index: int, palette: Sequence[Color] = ()) -> Color:
    """Return the color of class ``index``: that of ``palette`` where it has one, else a color unlike its neighbors'."""
    if index < len(palette):
        return palette[index]
    saturation, value = (0.85, 0.6)[index // 12 % 2], (1.0, 0.8)[index % 2]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_color(background: Color) -> Color:
    """Return black or white, whichever has the higher contrast (WCAG 2.1) on ``background``."""
    linear = [(v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE


def font_size(height: int, width: int) -> int:
    """Return the font size in pixels for an image of ``height`` x ``width``."""
    return max(MIN_FONT, round(TEXT_SHARE * (height * width) ** 0.5))


def line_width(height: int, width: int) -> int:
    """Return the line width in pixels for an image of ``height`` x ``width``."""
    return max(1, round(font_size(height, width) / 7))


@cache
def _font(size: int) -> Any:
    """Return the font of matplotlib, which has Latin, Greek and Cyrillic letters; without matplotlib that of Pillow."""
    file = _font_file()
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _font_file() -> Path | None:
    try:
        from matplotlib import get_data_path
    except ImportError:
        return None
    return Path(get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'


@cache
def _letters() -> frozenset[int]:
    if not (file := _font_file()):
        return frozenset(range(ord(' '), 127))
    from matplotlib.font_manager import get_font

    return frozenset(get_font(file).get_charmap())


def legible(name: str, index: int) -> str:
    """Return the name of class ``index`` as it is drawn: ``class 3`` where the font lacks one of its letters."""
    return name if _letters().issuperset(map(ord, name)) else f'class {index}'


def resize_within(image: Array, least: int, most: int) -> Array:
    """Return ``image`` scaled such that its longer side has ``least`` to ``most`` pixels; the ratio is kept."""
    longer = max(image.shape[:2])
    scale = min(max(longer, least), most) / longer
    if scale == 1:
        return image.copy()
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    method = Image.Resampling.NEAREST if scale >= 8 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, method))


def draw_boxes(
    image: Array, boxes: Iterable[Sequence[float]], texts: Sequence[str] = (), colors: Sequence[Color] = (WHITE,)
) -> Array:
    """Draw boxes with their labels, which avoid one another where there is room.

    Boxes are left, top, right, bottom in pixels, the most important one first: it is drawn on top. Those that are not
    finite or do not touch the image are left out. There is a color for each box, or one for all of them.
    """
    canvas = Image.fromarray(image)
    pen, width = ImageDraw.Draw(canvas), line_width(*image.shape[:2])
    visible = [(index, _visible(box, canvas.size)) for index, box in enumerate(boxes)]
    drawn = [(index, box) for index, box in visible if box is not None]
    for index, box in reversed(drawn):
        _outline(pen, box, colors[index % len(colors)], width)
    placed: dict[int, Rectangle] = {}
    for index, box in [(index, box) for index, box in drawn if index < len(texts) and texts[index]]:
        placed[index] = _label_place(canvas.size, texts[index], box, list(placed.values()))
    for index, place in reversed(placed.items()):
        _write_label(pen, place[:2], texts[index], colors[index % len(colors)], font_size(*image.shape[:2]))
    return np.asarray(canvas)


def _visible(box: Sequence[float], size: tuple[int, int]) -> Rectangle | None:
    left, top, right, bottom = map(float, box)
    shown = 0 <= right >= left <= size[0] and 0 <= bottom >= top <= size[1]  # False with NaN
    if not shown or not np.isfinite([left, top, right, bottom]).all():
        return None
    return max(left, -9.0), max(top, -9.0), min(right, size[0] + 9.0), min(bottom, size[1] + 9.0)


def _outline(pen: ImageDraw.ImageDraw, box: Rectangle, color: Color, width: int) -> None:
    """Draw a rectangle with an edge of high contrast on both sides, so that it stands out from any background."""
    left, top, right, bottom = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    edge = max(1, width // 3)
    outer = (left - edge, top - edge, right + edge, bottom + edge)
    pen.rectangle(outer, outline=text_color(color), width=width + 2 * edge)
    pen.rectangle((left, top, right, bottom), outline=color, width=width)


def _label_place(size: tuple[int, int], text: str, box: Rectangle, placed: Sequence[Rectangle]) -> Rectangle:
    """Return the first rectangle around ``box`` that no other label takes."""
    width, height = _label_size(text, font_size(size[1], size[0]))
    columns = (box[0], box[2] - width)
    rows = (box[1] - height, box[1], box[3], box[3] - height, (box[1] + box[3] - height) / 2)
    right, bottom = max(size[0] - width, 0), max(size[1] - height, 0)
    corners = [(min(max(x, 0), right), min(max(y, 0), bottom)) for y in rows for x in columns]
    places = [(x, y, x + width, y + height) for x, y in corners]
    free = [a for a in places if not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in placed)]
    return [*free, places[0]][0]


def _label_size(text: str, font: int) -> tuple[float, float]:
    return _font(font).getlength(text) + font / 2, font * 1.3


def _write_label(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: Color, font: int) -> None:
    """Write ``text`` on a patch of ``color``."""
    width, height = _label_size(text, font)
    pen.rectangle((place[0], place[1], place[0] + width, place[1] + height), fill=color)
    middle = (place[0] + font / 4, place[1] + height / 2)
    pen.text(middle, text, fill=text_color(color), font=_font(font), anchor='lm')


def draw_masks(image: Array, masks: Iterable[Array], colors: Sequence[Color], *, alpha: float = 0.5) -> Array:
    """Draw instance masks, each (H, W) bool, half transparent and with a solid edge; the first one lies on top."""
    out, width = image.copy(), line_width(*image.shape[:2])
    for index, mask in reversed(list(enumerate(masks))):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside, padded = mask[window], np.pad(mask[window], width)
        core = padded[2 * width :, width:-width] & padded[: -2 * width, width:-width]
        core &= padded[width:-width, 2 * width :] & padded[width:-width, : -2 * width]
        weight = np.where(core, alpha, 1.0)[inside][:, None]
        color = np.array(colors[index % len(colors)], np.float32)
        out[window][inside] = np.rint(out[window][inside] * (1 - weight) + color * weight)
    return out


def draw_label_map(image: Array, labels: Array, colors: Sequence[Color | None], *, alpha: float = 0.6) -> Array:
    """Draw a map of classes (H, W) over ``image``; a class without a color (None) leaves the image visible."""
    table = np.array([color or BLACK for color in colors], np.float32)
    weights = np.array([0.0 if color is None else alpha for color in colors], np.float32)
    weight = weights[labels][..., None]
    return np.rint(image * (1 - weight) + table[labels] * weight).astype(np.uint8)


def draw_heat_map(image: Array, heat: Array, *, alpha: float = 0.5) -> Array:
    """Draw values (h, w) in [0, 1] over ``image``, resized to its size: dark to light, also for color-blind readers."""
    from matplotlib import colormaps

    size = (image.shape[1], image.shape[0])
    values = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colors = colormaps['inferno'](np.clip(values, 0, 1).astype(float), bytes=True)[..., :3]
    return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(colors), alpha))


def wrap_text(text: str, width: float, font: int) -> list[str]:
    """Return ``text`` in lines of about ``width`` pixels at most, broken at blanks, and in words that are wider."""
    letters = 0.9 * width * len(text) / max(_font(font).getlength(text), 1)
    return textwrap.wrap(text, max(int(letters), 1))


def add_legend(image: Array, title: str, entries: Sequence[tuple[str, Color]] = ()) -> Array:
    """Return ``image`` with a title and labels of classes in their colors below it; wider where a label is."""
    font = font_size(*image.shape[:2])
    line, margin, rows, used = round(font * 1.6), font // 3, 1 if entries else 0, 0.0
    extents = [_label_size(text, font)[0] + margin for text, _ in entries]
    width = max(image.shape[1], *(math.ceil(extent) + margin for extent in extents), 0)
    titles, places = wrap_text(title, width - 2 * margin, font), []
    for extent in extents:
        if used and used + extent > width - margin:
            rows, used = rows + 1, 0.0
        places.append((margin + used, rows - 1))
        used += extent
    sheet = Image.new('RGB', (width, image.shape[0] + line * (len(titles) + rows) + margin), (24, 24, 24))
    sheet.paste(Image.fromarray(image))
    pen, top = ImageDraw.Draw(sheet), image.shape[0] + margin
    for number, text in enumerate(titles):
        pen.text((margin, top + line * number), text, fill=WHITE, font=_font(font))
    for (text, color), (x, row) in zip(entries, places, strict=True):
        _write_label(pen, (x, top + line * (len(titles) + row)), text, color, font)
    return np.asarray(sheet)


def make_sheet(
    images: Sequence[Array], titles: Sequence[Sequence[str]] = (), *, columns: int | None = None, footer: str = ''
) -> Array:
    """Return images of any size in a grid, centered in cells of equal size.

    Above each are the lines of its title, which are wrapped. ``columns`` is the number of images in a row, by default
    all of them; ``footer`` is a line below the grid.
    """
    columns = columns or len(images)
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    font = font_size(height, width)
    gap, line = font, round(font * 1.35)
    width = max(width, 16 * font)  # room for a title
    wrapped = [[row for text in lines for row in wrap_text(text, width, font)] for lines in titles]
    starts = range(0, len(images), columns)
    above = [max((len(lines) for lines in wrapped[start : start + columns]), default=0) for start in starts]
    total = gap + sum(line * lines + height + gap for lines in above) + (line + gap if footer else 0)
    sheet = Image.new('RGB', (gap + (width + gap) * columns, total), WHITE)
    pen, top = ImageDraw.Draw(sheet), gap
    for start, lines in zip(starts, above, strict=True):
        for index, image in enumerate(images[start : start + columns], start):
            left = gap + (width + gap) * (index - start)
            for number, text in enumerate(wrapped[index] if index < len(wrapped) else ()):
                pen.text((left, top + line * number), text, fill=BLACK, font=_font(font))
            sheet.paste(Image.fromarray(image), (left + (width - image.shape[1]) // 2, top + line * lines))
        top += line * lines + height + gap
    if footer:
        pen.text((gap, top), wrap_text(footer, sheet.width - 2 * gap, font)[0], fill=BLACK, font=_font(font))
    return np.asarray(sheet)
