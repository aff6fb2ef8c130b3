"""Mask files: which pixels are salient, and which files are refused because they would be misread in silence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.saliency.datasets import LoadSaliencyMask, salient_pixels

VALUES = np.array([[0, 1, 127, 128], [254, 255, 20, 200]], np.uint8)
SALIENT = [[0, 0, 0, 1], [1, 1, 0, 1]]


def save(path: Path, values: np.ndarray | Image.Image, mode: str | None = None) -> str:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return str(path)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'LA', 'P'])
def test_half_of_255_is_salient(tmp_path: Path, mode: str) -> None:
    pixels = salient_pixels(save(tmp_path / 'm.png', VALUES, mode))
    assert (pixels.tolist(), pixels.dtype) == (SALIENT, np.uint8)


def test_masks_of_one_bit_of_one_class_and_of_jpeg(tmp_path: Path) -> None:
    one_bit, votes = np.array([[True, False], [False, True]]), 255 // 12  # one vote of twelve, as in PASCAL-S
    assert salient_pixels(save(tmp_path / 'm.png', one_bit)).tolist() == one_bit.tolist()
    for value, salient in ((False, 0), (np.uint8(0), 0), (np.uint8(255), 1), (np.uint8(votes), 0)):
        assert salient_pixels(save(tmp_path / 'm.png', np.full((1, 2), value))).tolist() == [[salient] * 2]
    values = np.zeros((32, 48), np.uint8)
    values[8:24, 10:30] = 255
    path = tmp_path / 'm.jpg'
    Image.fromarray(values).convert('RGB').save(path, quality=75)
    assert np.array_equal(salient_pixels(str(path)) * 255, values)


def transparent(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values).convert('RGBA')
    image.putpixel((1, 1), (*image.getpixel((1, 1))[:3], 0))
    return image


def coloured(*, palette: bool) -> Image.Image:
    image = Image.fromarray((VALUES > 127).astype(np.uint8), 'P')
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image if palette else image.convert('RGB')


REFUSED = {
    'value is 1,.*128': Image.fromarray((VALUES > 127).astype(np.uint8)), 'colours': coloured(palette=False),
    'colours.*': coloured(palette=True), 'I;16': Image.fromarray(VALUES.astype(np.uint16) * 257),
    'transparent': transparent(VALUES),
}  # fmt: skip


@pytest.mark.parametrize('reason', REFUSED)
def test_refused_masks(tmp_path: Path, reason: str) -> None:
    with pytest.raises(UserError, match=rf'm\.png: .*{reason}'):
        salient_pixels(save(tmp_path / 'm.png', REFUSED[reason]))


def loaded(image: str, mask: str, shape: tuple[int, int]) -> dict:
    return dict(img_path=image, seg_map_path=mask, ori_shape=shape, seg_fields=[])


def test_transform_gives_labels_and_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    image, mask = save(tmp_path / 'i.jpg', Image.new('RGB', (4, 2))), save(tmp_path / 'm.png', VALUES)
    given = loaded(image, mask, (2, 4))
    results = LoadSaliencyMask()(given)
    assert (results['gt_seg_map'].tolist(), results['seg_fields']) == (SALIENT, ['gt_seg_map'])
    assert given == loaded(image, mask, (2, 4))
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
