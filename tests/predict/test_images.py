"""Reading, resizing and pasting against torch, mmcv and mmdet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from mmres2net.errors import UserError
from mmres2net.predict.images import apply_transforms, decode_mask, paste_mask, read_image, resize_logits

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8)
GRADIENT = np.linspace(0, 65535, 37 * 53).reshape(37, 53).astype(np.uint16)


def write_image(folder: Path, name: str) -> Path:
    """Write an image of the kind that ``name`` says: MODE-EXIF.SUFFIX."""
    path = folder / name
    mode, _, orientation = path.stem.partition('-')
    if mode.startswith('16'):
        pixels = GRADIENT if mode == '16' else np.dstack([GRADIENT] * int(mode[3:]))
        pytest.importorskip('cv2').imwrite(str(path), pixels)
        return path
    if mode == 'P':
        image = Image.fromarray(NOISE[..., :3]).quantize(32)
    elif mode in ('L', '1'):
        image = Image.fromarray(NOISE[..., 0]).convert(mode)
    else:
        image = Image.fromarray(NOISE[..., [0, 3]] if mode == 'LA' else NOISE[..., : len(mode)], mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = int(orientation)
    image.save(path, exif=exif)
    return path


NAMES = [f'{mode}.png' for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1', '16', '16x3', '16x4')]
NAMES += [f'{mode}.tif' for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1', '16', 'CMYK')]
NAMES += ['RGB.jpg', 'L.jpg', 'CMYK.jpg', 'RGB.bmp', 'P.bmp', '1.bmp', 'RGB.webp', 'RGBA.webp']
NAMES += [f'RGB-{orientation}.jpg' for orientation in range(1, 9)]
NAMES += ['RGB-6.png', 'RGB-6.tif', 'RGB-6.webp', 'L-3.jpg', 'CMYK-8.jpg']


@pytest.mark.parametrize('name', NAMES)
def test_images_are_read_as_mmcv_reads_them(name: str, tmp_path: Path) -> None:
    mmcv = pytest.importorskip('mmcv')
    path = write_image(tmp_path, name)
    assert np.array_equal(read_image(path), mmcv.imread(path, channel_order='rgb'))
    expected = mmcv.imread(path, 'color_ignore_orientation')[..., ::-1]
    assert np.array_equal(read_image(path, apply_exif=False), expected)


def test_images_that_are_cut_off_or_without_8_bit_colors_are_refused(tmp_path: Path) -> None:
    content = write_image(tmp_path, 'RGB.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) // 2])
    for index, array in enumerate((NOISE[..., 0].astype(np.float32), NOISE[..., 0].astype(np.int32))):
        Image.fromarray(array).save(tmp_path / f'{index}.tif')
        with pytest.raises(UserError, match=f'{index}.tif|mode'):
            read_image(tmp_path / f'{index}.tif')
    for broken in (b'', b'\xff\xd8\xff\xe0 not an image', b'BM', b'II*\0\xff\xff\xff\x7f'):
        (tmp_path / 'broken.jpg').write_bytes(broken)
        with pytest.raises(UserError, match=r'broken\.jpg'):
            read_image(tmp_path / 'broken.jpg')
    for other in (tmp_path / 'cut.jpg', tmp_path / 'absent.jpg', NOISE.astype(float), NOISE[:, :, 0], NOISE[:0, :, :3]):
        with pytest.raises(UserError):
            read_image(other)


def test_images_of_pillow_are_turned_by_their_orientation(tmp_path: Path) -> None:
    path = write_image(tmp_path, 'RGB-6.png')
    for exif in (True, False):
        assert np.array_equal(read_image(Image.open(path), apply_exif=exif), read_image(path, apply_exif=exif))
    with pytest.raises(UserError, match='mode'):
        read_image(Image.fromarray(GRADIENT))


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('size', [(80, 96), (20, 31), (1, 1)])
def test_logits_are_resized_as_by_torch(size: tuple[int, int], align_corners: bool) -> None:
    logits = np.random.default_rng(0).standard_normal((17, 23)).astype(np.float32)
    tensor = torch.from_numpy(logits)[None, None]
    expected = functional.interpolate(tensor, size, mode='bilinear', align_corners=align_corners)[0, 0]
    np.testing.assert_allclose(resize_logits(logits, size, align_corners=align_corners), expected, atol=1e-5)


PIPELINES = [
    [dict(type='Resize', scale=(96, 64), keep_ratio=True)],
    [dict(type='Resize', scale=(61, 83), keep_ratio=False)],
    [dict(type='ResizeEdge', scale=48, edge='short', filter='bicubic'), dict(type='CenterCrop', crop_size=(41, 40))],
    [dict(type='ResizeEdge', scale=25, edge='long'), dict(type='CenterCrop', crop_size=(99, 12))],
    [dict(type='ResizeEdge', scale=30, edge='width', filter='bilinear')],
]


@pytest.mark.parametrize('shape', [(37, 53), (40, 40), (101, 30), (100, 66)])
@pytest.mark.parametrize('transforms', PIPELINES)
def test_transforms_are_those_of_the_pipeline(transforms: list[dict], shape: tuple[int, int]) -> None:
    registry = pytest.importorskip('mmpretrain.registry').TRANSFORMS
    pytest.importorskip('mmpretrain.datasets.transforms')
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    results = {'img': image}
    for transform in transforms:
        node = {**transform, 'type': f'mmpretrain.{transform["type"]}'}
        if 'filter' in transform:
            node |= dict(backend='pillow', interpolation=node.pop('filter'))
        results = registry.build(node)(results)
    got = apply_transforms(image, transforms)
    assert np.array_equal(got, results['img'])


def test_masks_are_pasted_as_by_mmdet() -> None:
    heads = pytest.importorskip('mmdet.models.roi_heads.mask_heads.fcn_mask_head')
    generator = np.random.default_rng(0)
    corners = generator.uniform(-5, 40, (30, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 30, (30, 2))], 1).astype(np.float32)
    masks = generator.uniform(0, 1, (30, 28, 28)).astype(np.float32)
    expected = heads._do_paste_mask(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), 50, 60, False)[0]
    got = np.stack([decode_mask(paste_mask(*pair, (50, 60), 0.5)) for pair in zip(masks, boxes, strict=True)])
    assert (got != (expected.numpy() >= 0.5)).mean() < 1e-4
    assert got.any(axis=(1, 2)).sum() > 20


@pytest.mark.parametrize('box', [[3, 3, 3, 9], [90, 90, 99, 99], [np.nan, 0, 5, 5], [5, 5, 2, 9]])
def test_boxes_without_extent_have_empty_masks(box: list[float]) -> None:
    mask = decode_mask(paste_mask(np.ones((4, 4), np.float32), np.array(box), (20, 30), 0.5))
    assert mask.shape == (20, 30)
    assert not mask.any()
