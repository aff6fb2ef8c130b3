"""What is drawn: colors at the right pixels, legible text, inputs unchanged."""

import numpy as np
import pytest

from mmres2net import drawing

RED, BLUE = (255, 0, 0), (0, 0, 255)
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_boxes_lie_on_their_pixels_and_the_first_on_top() -> None:
    before = IMAGE.copy()
    out = drawing.draw_boxes(IMAGE, [[10, 20, 30, 40], [10, 5, 30, 50]], colors=[RED, BLUE])
    assert np.array_equal(before, IMAGE)
    assert out[20, 20].tolist() == out[39, 20].tolist() == out[30, 10].tolist() == out[30, 29].tolist() == list(RED)
    assert out[5, 20].tolist() == out[49, 20].tolist() == list(BLUE)
    assert np.array_equal(out[10:18, 14:26], IMAGE[10:18, 14:26])


@pytest.mark.parametrize(
    'box', [[np.nan, 0, 9, 9], [0, 0, np.inf, 9], [90, 5, 99, 9], [-9, 5, -2, 9], [5, -9, 9, -2], [9, 9, 3, 3]]
)
def test_boxes_that_cannot_be_seen_are_left_out(box: list[float]) -> None:
    assert np.array_equal(drawing.draw_boxes(IMAGE, [box], ['name'], [RED]), IMAGE)


def test_masks_are_half_transparent_with_a_solid_edge() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:30, 20:50] = True
    out = drawing.draw_masks(IMAGE, [mask], [RED])
    assert np.array_equal(out[~mask], IMAGE[~mask])
    assert (out[10, 20:50] == RED).all()
    assert (out[10:30, 49] == RED).all()
    assert np.abs(out[20, 35] - (IMAGE[20, 35] / 2 + np.array(RED) / 2)).max() <= 0.5
    assert np.array_equal(drawing.draw_masks(IMAGE, [np.zeros((60, 80), bool)], [RED]), IMAGE)


def test_label_maps_leave_uncolored_classes_visible() -> None:
    labels = np.zeros((60, 80), int)
    labels[:, 40:] = 1
    out = drawing.draw_label_map(IMAGE, labels, [None, BLUE], alpha=0.25)
    assert np.array_equal(out[:, :40], IMAGE[:, :40])
    assert np.abs(out[:, 40:] - (0.75 * IMAGE[:, 40:] + 0.25 * np.array(BLUE))).max() <= 0.51


def test_sheets_and_legends_hold_their_images() -> None:
    other = IMAGE[:40, :50]
    sheet = drawing.make_sheet([IMAGE, other, IMAGE], [['one'], ['a title that is wrapped'] * 2], columns=2, footer='x')
    legend = drawing.add_legend(IMAGE, 'title', [(f'class {index}', BLUE) for index in range(9)])
    assert np.array_equal(legend[:60], IMAGE)
    small = drawing.add_legend(IMAGE[:9, :9], '', [('a long name', BLUE)])
    assert np.array_equal(small[:9, :9], IMAGE[:9, :9])
    assert not np.any(np.all(small[9:, -1] == BLUE, -1))  # the label ends before the picture does
    for image, count in ((IMAGE, 2), (other, 3)):  # the smaller one is a part of the larger ones
        windows = np.lib.stride_tricks.sliding_window_view(sheet, image.shape)[:, :, 0, 0, 0, 0]
        places = np.argwhere(windows == image[0, 0, 0])
        shape = image.shape
        assert sum(np.array_equal(sheet[y : y + shape[0], x : x + shape[1]], image) for y, x in places) == count


def test_names_in_letters_that_the_font_lacks_are_numbers() -> None:
    assert [drawing.legible(name, 3) for name in ('café', 'кошка', '苹果', '🐈 cat')] == [
        'café', 'кошка', 'class 3', 'class 3'
    ]  # fmt: skip
    drawn = [drawing.draw_boxes(IMAGE, [(5, 20, 70, 50)], [drawing.legible(name, 3)]) for name in ('苹果', 'class 3')]
    assert np.array_equal(*drawn)
