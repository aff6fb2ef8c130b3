"""Pictures: lighter where the map is stronger, with titles that fit, at any size."""

import numpy as np
import pytest

from mmres2net.cam.draw import GAP, LEAST, MOST, NARROWEST, Panel, _wrapped, coloured, row_of
from mmres2net.cam.view import Window


def lightness(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.2126, 0.7152, 0.0722])


def test_stronger_is_lighter() -> None:
    light = lightness(coloured(np.linspace(0, 1, 256)[None]))[0]
    assert (np.diff(light) > -1.5).all(), 'but for rounding'
    assert light[0] < 5
    assert light[-1] > 230


@pytest.mark.parametrize(('height', 'width'), [(400, 500), (8, 9), (3000, 2000), (1, 1), (1000, 12), (12, 1000)])
def test_sizes(height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    strength = np.zeros((height, width), np.float32)
    strength[: height // 2 + 1] = 1
    sheet = row_of(image, [Panel(['image']), Panel(['net', 'class'], strength)], 'gradcam at layer4')
    assert sheet.mode == 'RGB'
    longer = min(max(height, width, LEAST), MOST)
    panel = max(round(width * longer / max(height, width)), NARROWEST)
    assert sheet.width == GAP + 2 * (panel + GAP)
    assert sheet.height > round(height * longer / max(height, width))


def test_panels_show_the_map_and_what_is_not_seen_darker() -> None:
    image = np.full((400, 400, 3), 120, np.uint8)
    strength = np.zeros((400, 400), np.float32)
    strength[150:250, 150:250] = 1
    seen = Window(100, 100, 200, 200)
    sheet = np.asarray(row_of(image, [Panel(['a']), Panel(['a'], strength, seen)], 'x')).astype(float)
    top = next(row for row in range(sheet.shape[0]) if (sheet[row, GAP + 5] == 120).all())
    left = GAP + 400 + GAP
    light = lightness(sheet)
    assert (sheet[top : top + 400, GAP : GAP + 400] == 120).all(), 'the image as it is'
    strong, weak, outside = (light[top + at, left + at] for at in (200, 120, 50))
    assert strong > 120 > weak > outside
    assert light[top + 100, left + 200] > 254, 'the frame'


def test_a_box_is_drawn() -> None:
    image = np.full((400, 400, 3), 120, np.uint8)
    plain, boxed = (
        np.asarray(row_of(image, [Panel(['a'], np.zeros((400, 400), np.float32), box=box)], 'x'))
        for box in (None, (50.0, 60.0, 150.0, 170.0))
    )
    rows, columns = np.nonzero((plain != boxed).any(2))
    assert (np.ptp(rows), np.ptp(columns)) == (110, 100)


def test_titles_are_wrapped_and_nothing_is_lost() -> None:
    text = 'res2net50_26w_4s, epoch_100.pth Bernese mountain dog: 0.981 ' + 'x' * 90
    lines = _wrapped(text, NARROWEST)
    from mmres2net.cam.draw import _font

    assert max(_font().getlength(line) for line in lines) <= NARROWEST
    assert ''.join(lines).replace(' ', '') == text.replace(' ', '')
    assert _wrapped('', 100) == ['']


def test_long_titles_make_room() -> None:
    image = np.zeros((320, 320, 3), np.uint8)
    short, long = (row_of(image, [Panel([text])], 'x').height for text in ('a', 'word ' * 100))
    assert long > short + 100


def test_what_is_thinner_than_a_line_is_drawn() -> None:
    image, strength = np.zeros((1000, 1000, 3), np.uint8), np.zeros((1000, 1000), np.float32)
    thin = Panel(['a'], strength, Window(500, 20, 0.2, 0.2), (3.0, 4.0, 3.5, 4.2))
    assert row_of(image, [thin], 'x').width == MOST + 2 * GAP
