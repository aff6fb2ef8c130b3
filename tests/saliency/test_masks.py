"""Mask files: which pixels are salient, and which files are refused because they would be misread in silence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.saliency.masks import salient_pixels, sample_fault, transparency_fault
from mmres2net.saliency.transforms import LoadSaliencyMask

VALUES = np.array([[0, 1, 127, 128], [254, 255, 20, 200]], np.uint8)
SALIENT = [[0, 0, 0, 1], [1, 1, 0, 1]]


def save(path: Path, values: np.ndarray | Image.Image, mode: str | None = None) -> str:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return str(path)


def test_half_of_255_is_salient(tmp_path: Path) -> None:
    pixels = salient_pixels(save(tmp_path / 'm.png', VALUES))
    assert pixels.tolist() == SALIENT
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA', 'P'])
def test_grey_in_other_forms(tmp_path: Path, mode: str) -> None:
    assert salient_pixels(save(tmp_path / 'm.png', VALUES, mode)).tolist() == SALIENT


def test_one_bit_masks(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    assert salient_pixels(save(tmp_path / 'm.png', bits)).tolist() == [[1, 0], [0, 1]]
    assert salient_pixels(save(tmp_path / 'none.png', ~bits & bits)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize('value', [0, 255])
def test_masks_of_one_class_are_masks(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / 'm.png', np.full((4, 6), value, np.uint8))
    assert salient_pixels(path).tolist() == [[value // 255] * 6] * 4


def test_graded_mask_without_a_salient_pixel_is_a_mask(tmp_path: Path) -> None:
    """One vote of twelve, as in PASCAL-S."""
    path = save(tmp_path / 'm.png', np.full((4, 6), 255 // 12, np.uint8))
    assert salient_pixels(path).max() == 0


def test_jpeg_mask(tmp_path: Path) -> None:
    values = np.zeros((32, 48), np.uint8)
    values[8:24, 10:30] = 255
    path = tmp_path / 'm.jpg'
    Image.fromarray(values).convert('RGB').save(path, quality=75)
    assert np.array_equal(salient_pixels(str(path)) * 255, values)


def test_classes_0_and_1_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / 'm.png', (VALUES > 127).astype(np.uint8))
    with pytest.raises(UserError, match=r'm\.png: .*value is 1,.*128'):
        salient_pixels(path)


def test_colours_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[1:3, 1:3, 0] = 255
    palette = Image.fromarray((VALUES > 127).astype(np.uint8), 'P')
    palette.putpalette([0, 0, 0, 128, 0, 0])
    for image in (Image.fromarray(colours), palette):
        with pytest.raises(UserError, match=r'm\.png: .*colours'):
            salient_pixels(save(tmp_path / 'm.png', image))


def test_deep_masks_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / 'm.png', VALUES.astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r'm\.png: .*I;16'):
        salient_pixels(path)


def transparent(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values).convert('RGBA')
    image.putpixel((1, 1), (*image.getpixel((1, 1))[:3], 0))
    return image


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.png', transparent(VALUES))
    with pytest.raises(UserError, match=r'a\.png: .*transparent'):
        salient_pixels(path)
    assert 'transparent' in transparency_fault(path)
    keyed = save(tmp_path / 'k.png', VALUES)
    Image.open(keyed).save(tmp_path / 'key.png', transparency=255)
    assert 'transparent' in transparency_fault(str(tmp_path / 'key.png'))
    assert transparency_fault(keyed) == transparency_fault(save(tmp_path / 'o.png', VALUES, 'RGBA')) == ''


# Beside their images


def test_sample_that_is_sound(tmp_path: Path) -> None:
    mask = save(tmp_path / 'm.png', VALUES)
    for image in (Image.new('L', (4, 2)), Image.new('1', (4, 2)), Image.new('RGBA', (4, 2), 'red')):
        assert sample_fault(save(tmp_path / 'i.png', image), mask) == ''
    assert sample_fault(save(tmp_path / 'i.jpg', Image.new('CMYK', (4, 2))), mask) == ''
    assert 'transparent' in sample_fault(save(tmp_path / 'i.png', Image.new('RGBA', (4, 2), (9, 9, 9, 254))), mask)


def test_image_and_mask_of_different_sizes(tmp_path: Path) -> None:
    image, mask = save(tmp_path / 'i.jpg', Image.new('RGB', (5, 2))), save(tmp_path / 'm.png', VALUES)
    fault = sample_fault(image, mask)
    assert f'{image} has 5x2' in fault
    assert f'{mask} has 4x2' in fault


def test_turned_image_has_the_size_that_loaders_give_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (2, 4)).save(tmp_path / 'i.jpg', exif=exif)
    assert sample_fault(str(tmp_path / 'i.jpg'), save(tmp_path / 'm.png', VALUES)) == ''


# The transform


def loaded(image: str, mask: str, shape: tuple[int, int]) -> dict:
    return dict(img_path=image, seg_map_path=mask, ori_shape=shape, seg_fields=[])


def test_transform_gives_labels(tmp_path: Path) -> None:
    image, mask = save(tmp_path / 'i.jpg', Image.new('RGB', (4, 2))), save(tmp_path / 'm.png', VALUES)
    given = loaded(image, mask, (2, 4))
    results = LoadSaliencyMask()(given)
    assert results['gt_seg_map'].tolist() == SALIENT
    assert results['seg_fields'] == ['gt_seg_map']
    assert given == loaded(image, mask, (2, 4))
    assert repr(LoadSaliencyMask()) == 'LoadSaliencyMask()'


def test_transform_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    """Also where the check before the start was skipped."""
    image, mask = save(tmp_path / 'i.png', transparent(VALUES)), save(tmp_path / 'm.png', VALUES)
    with pytest.raises(UserError, match=r'i\.png: .*transparent'):
        LoadSaliencyMask()(loaded(image, mask, (2, 4)))
    other = save(tmp_path / 'o.jpg', Image.new('RGB', (4, 3)))
    with pytest.raises(UserError, match=r'o\.jpg has 4x3.*m\.png has 4x2'):
        LoadSaliencyMask()(loaded(other, mask, (3, 4)))
    for content in (b'', Path(mask).read_bytes()[:40], None):
        bad = tmp_path / 'bad.png'
        bad.unlink(missing_ok=True) if content is None else bad.write_bytes(content)
        with pytest.raises(UserError, match=r'bad\.png'):
            LoadSaliencyMask()(loaded(other, str(bad), (3, 4)))
    with pytest.raises(UserError, match=r'LoadImageFromFile'):
        LoadSaliencyMask()(dict(img_path=other, seg_map_path=mask))
