"""What a network sees, and where in the image that is: odd sizes, crops, padding."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmres2net.cam.image import PreprocessedImage, preprocess_image, upsample_to_image
from mmres2net.errors import UserError
from tests.cam.models import config_of, write_image

pytest.importorskip('mmpretrain')
LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
EDGE = dict(type='ResizeEdge', scale=48, edge='short', backend='pillow')
PIPELINES = {
    'plain': [], 'without a flip': [dict(type='RandomFlip', prob=0.0)],
    'ratio': [dict(type='Resize', scale=(90, 50), keep_ratio=True)], 'stretched': [dict(type='Resize', scale=(61, 83))],
    'crop': [EDGE, dict(type='CenterCrop', crop_size=41)],
    'crop of more than there is': [EDGE, dict(type='CenterCrop', crop_size=(40, 99), auto_pad=True)],
    'padded': [dict(type='Pad', size_divisor=64), dict(type='Resize', scale=(70, 70))],
    'twice': [dict(type='CenterCrop', crop_size=31), EDGE, dict(type='CenterCrop', crop_size=33)],
}  # fmt: skip


class Model(torch.nn.Module):
    def __init__(self, divisor: int) -> None:
        super().__init__()
        self.data_preprocessor = MODELS.build(
            dict(type='mmpretrain.ClsDataPreprocessor', pad_size_divisor=divisor, to_rgb=True)
        )


def seen(path: Path, steps: list, divisor: int = 1) -> PreprocessedImage:
    init_default_scope('mmpretrain')
    cfg = config_of([LOAD, *steps, PACK], 'mmpretrain')
    before = cfg.to_dict()
    view = preprocess_image(cfg, Model(divisor), path)
    assert cfg.to_dict() == before, "the caller's config is not changed"
    return view


def centre(weights: np.ndarray) -> np.ndarray:
    weights = (weights - 0.5 * weights.max()).clip(0)
    rows, columns = (np.arange(length) + 0.5 for length in weights.shape)
    return np.array([weights.sum(1) @ rows, weights.sum(0) @ columns]) / weights.sum()


@pytest.mark.parametrize('divisor', [1, 32])
@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('size', [(45, 77), (131, 64)])
def test_a_point_of_the_input_lies_where_the_image_has_it(size, name, divisor, tmp_path) -> None:
    path = tmp_path / 'point.png'
    pixels = np.zeros((*size, 3), np.uint8)
    middle = (round(size[0] * 0.45), round(size[1] * 0.55))
    pixels[middle[0] - 3 : middle[0] + 4, middle[1] - 3 : middle[1] + 4] = 255
    Image.fromarray(pixels).save(path)
    view = seen(path, PIPELINES[name], divisor)
    found = centre(view.inputs[0].sum(0).numpy())
    height, width = view.inputs.shape[2:]
    assert height % divisor == width % divisor == 0
    place = view.window[:2] + found * view.window[2:] / (height, width)
    assert np.abs(place - middle - 0.5).max() < 0.5


def test_padding_is_cut_off_and_counts_for_nothing(tmp_path: Path) -> None:
    """The strongest cell lies in the padding: the map is scaled by the strongest pixel of the image."""
    view = seen(write_image(tmp_path / 'a.png', 40, 50), [], 64)
    strength = np.array([[0.2, 0.1], [0.4, 9.0]])
    expected = cv2.resize(strength, (64, 64), interpolation=cv2.INTER_LINEAR)[:40, :50]
    found = upsample_to_image(strength, view)
    np.testing.assert_allclose(found, expected / expected.max(), atol=2e-4)
    assert found.max() == 1


def test_what_is_not_seen_is_nothing(tmp_path: Path) -> None:
    view = seen(write_image(tmp_path / 'a.png', 96, 200), PIPELINES['crop'])
    found = upsample_to_image(np.ones((2, 2)), view)
    rows, columns = np.nonzero(found)
    # From (4, 56) of 48 x 100 on 41 x 41, in an image twice as large: the crop starts at round(29.5) = 30.
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (8, 90, 60, 142)
    assert set(np.unique(found)) == {0, 1}
    assert not upsample_to_image(np.zeros((2, 2)), view).any()
    assert not view.shows_all


def test_a_turned_photograph_is_shown_as_the_network_gets_it(tmp_path: Path) -> None:
    image = Image.open(write_image(tmp_path / 'a.png', 40, 60))
    image.getexif()[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / 'turned.jpg', exif=image.getexif())
    view = seen(tmp_path / 'turned.jpg', [])
    np.testing.assert_array_equal(view.inputs[0].permute(1, 2, 0).numpy(), view.image)
    assert (view.image.shape[:2], view.shows_all) == ((60, 40), True)


MOVING = [
    dict(type='RandomFlip', prob=1.0),
    *(dict(type=kind, crop_size=20) for kind in ('RandomCrop', 'EfficientNetCenterCrop')),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='RandomResize', scale=(32, 32)),
    dict(type='Rotate', angle=30.0, prob=1.0),
    *(dict(type=kind, magnitude=0.9, prob=1.0) for kind in ('Translate', 'ColorTransform')),
]
BROKEN = [[PACK], [], [LOAD], [LOAD, dict(type='Nonsense'), PACK]]


@pytest.mark.parametrize('steps', [*([LOAD, step, PACK] for step in MOVING), *BROKEN])
def test_steps_that_may_move_pixels_and_pipelines_that_do_not_work_are_refused(steps: list, tmp_path: Path) -> None:
    init_default_scope('mmpretrain')
    with pytest.raises(UserError):
        preprocess_image(config_of(steps, 'mmpretrain'), Model(1), write_image(tmp_path / 'a.png', 100, 150))


def test_data_sets_that_hold_their_pixels(tmp_path: Path) -> None:
    """CIFAR's images are RGB, and no step loads them."""
    init_default_scope('mmpretrain')
    cfg = config_of([PACK], 'mmpretrain')
    cfg.test_dataloader.dataset.type = 'mmres2net.CIFAR100'
    path = write_image(tmp_path / 'a.png', 32, 32)
    view = preprocess_image(cfg, Model(1), path)
    np.testing.assert_array_equal(view.image, np.asarray(Image.open(path)))
    np.testing.assert_array_equal(view.inputs[0].flip(0).permute(1, 2, 0).numpy(), view.image)  # to_rgb swaps them
