"""Resizing and pasting against OpenCV, torch and mmdet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from mmres2net.errors import UserError
from mmres2net.predict.images import fitted, framed, paste_masks, read_image, resize

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize('size', [(80, 96), (20, 31), (37, 10), (37, 53)])
def test_pixels_are_resized_as_the_hosts_resize_them(size: tuple[int, int]) -> None:
    mmcv = pytest.importorskip('mmcv')
    expected = mmcv.imresize(NOISE, size[::-1])
    difference = np.abs(resize(NOISE, size).astype(int) - expected)
    assert difference.max() <= 1, 'OpenCV works with 11 bits of a fraction'
    assert difference.mean() < 0.2


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('size', [(80, 96), (20, 31), (1, 1)])
def test_logits_are_resized_as_torch_does(size: tuple[int, int], align_corners: bool) -> None:
    logits = np.random.default_rng(0).standard_normal((17, 23, 4)).astype(np.float32)
    tensor = torch.from_numpy(logits).permute(2, 0, 1)[None]
    expected = functional.interpolate(tensor, size, mode='bilinear', align_corners=align_corners)[0].permute(1, 2, 0)
    got = resize(logits, size, align_corners=align_corners)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize('size', [(480, 640), (500, 333), (1000, 100), (800, 1333)])
@pytest.mark.parametrize('scale', [(1333, 800), (160, 160)])
def test_sizes_are_those_of_the_hosts(size: tuple[int, int], scale: tuple[int, int]) -> None:
    mmcv = pytest.importorskip('mmcv')
    assert fitted(size, scale, True) == mmcv.rescale_size(size[::-1], scale)[::-1]
    assert fitted(size, scale, False) == scale[::-1]


def test_masks_are_pasted_as_mmdet_pastes_them() -> None:
    heads = pytest.importorskip('mmdet.models.roi_heads.mask_heads.fcn_mask_head')
    generator = np.random.default_rng(0)
    corners = generator.uniform(-5, 40, (30, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 30, (30, 2))], 1).astype(np.float32)
    masks = generator.uniform(0, 1, (30, 28, 28)).astype(np.float32)
    expected = heads._do_paste_mask(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), 50, 60, False)[0]
    got = paste_masks(masks, boxes, (50, 60), 0.5)
    assert (got != (expected.numpy() >= 0.5)).mean() < 1e-4
    assert got.any(axis=(1, 2)).sum() > 20


def test_a_box_of_no_size_has_no_mask() -> None:
    masks = paste_masks(np.ones((2, 4, 4)), np.array([[3, 3, 3, 9], [90, 90, 99, 99]]), (20, 20), 0.5)
    assert masks.shape == (2, 20, 20)
    assert not masks.any()


def test_a_frame_is_filled() -> None:
    frame = framed(NOISE, (40, 60), (1, 2, 3))
    assert np.array_equal(frame[:37, :53], NOISE)
    assert frame[38, 10].tolist() == frame[10, 55].tolist() == [1, 2, 3]


def test_images_are_read_or_refused(tmp_path: Path) -> None:
    Image.fromarray(NOISE[:, :, 0]).save(tmp_path / 'grey.png')
    assert np.array_equal(read_image(tmp_path / 'grey.png'), np.repeat(NOISE[:, :, :1], 3, 2))
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0 not an image')
    for source in (tmp_path / 'broken.jpg', tmp_path / 'absent.jpg', NOISE.astype(float), NOISE[:, :, 0]):
        with pytest.raises(UserError, match=r'cannot be read as an image|an image is \(H, W, 3\)'):
            read_image(source)
