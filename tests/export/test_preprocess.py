"""What happens to an image before the network: channel order, geometry, normalization, padding."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from PIL import Image

from mmres2net.data.layout import dataset_of_test
from mmres2net.engine.build import scope_of
from mmres2net.engine.config import load_config
from mmres2net.engine.source import channel_order_of
from mmres2net.errors import UserError
from mmres2net.export.preprocess import preprocess_of, run_pipeline, transforms_of
from mmres2net.models import AlignedSegDataPreProcessor
from mmres2net.paths import list_configs

for package in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)
LOAD = dict(type='LoadImageFromFile')


def config_of(*steps: dict, kind: object = 'None', scope: str = 'mmpretrain', **preprocessor: object) -> Config:
    pixels = dict(mean=[10, 20, 30], std=[1, 2, 4], **preprocessor)
    loader = dict(dataset=dict(type=kind, pipeline=list(steps)))
    return Config(dict(default_scope=scope, model=dict(data_preprocessor=pixels), test_dataloader=loader))


def test_pixels_of_cifar_are_rgb() -> None:
    """A red pixel, normalized by the means of training."""
    graph = preprocess_of(load_config('cifar100/res2next29_6c24w4s.py'), pad=False)
    image = torch.tensor([200, 0, 10], dtype=torch.uint8).view(1, 3, 1, 1)
    assert graph(image).flatten().tolist() == pytest.approx([1.31, -2.04, -1.63], abs=0.01)


class Mirrored:
    """A data set that holds pixels and says in which order."""

    channel_order = 'bgr'


PACKED = dict(type='PackInputs')
ORDERS = [
    (LOAD, 'None', 'bgr'), (dict(LOAD, imdecode_backend='pillow', to_float32=True), 'None', 'bgr'),
    (dict(LOAD, color_type='color_ignore_orientation'), 'None', 'bgr'),
    (dict(LOAD, type='mmcv.LoadImageFromFile'), 'None', 'bgr'), (dict(LOAD, color_type='unchanged'), 'None', None),
    (dict(LOAD, imdecode_backend='tifffile'), 'None', None), (dict(type='LoadImageFromNDArray'), 'None', None),
    (PACKED, 'mmpretrain.CIFAR100', 'rgb'), (PACKED, Mirrored, 'bgr'), (PACKED, 'MNIST', None),
]  # fmt: skip


@pytest.mark.parametrize(('step', 'kind', 'order'), ORDERS)
def test_channel_order_of_loaded_images_and_of_data_sets_with_pixels(step, kind, order) -> None:
    cfg = config_of(step, kind=kind)
    if order:
        assert channel_order_of(cfg) == order
    else:
        with pytest.raises(UserError):
            channel_order_of(cfg)


KNOWN = [
    (dict(type='Resize', scale=(9, 5), keep_ratio=True), dict(type='Resize', scale=(9, 5), keep_ratio=True)),
    (dict(type='mmdet.Resize', scale=7), dict(type='Resize', scale=(7, 7), keep_ratio=False)),
    (dict(type='ResizeEdge', scale=9, edge='long'), dict(type='ResizeEdge', scale=9, edge='long')),
    (dict(type='CenterCrop', crop_size=4), dict(type='CenterCrop', crop_size=(4, 4))),
]
UNKNOWN = [
    dict(type='ResizeEdge', scale=9, interpolation='bicubic'),  # OpenCV's
    dict(type='Resize', scale_factor=2.0),
    dict(type='CenterCrop', crop_size=4, auto_pad=True),
    *(dict(type=kind, scale=9) for kind in ('RandomResizedCrop', 'EfficientNetCenterCrop', 'Pad', 'RandomFlip')),
]


def test_transforms_are_known_or_refused() -> None:
    for step, expected in [*KNOWN, *((step, None) for step in UNKNOWN)]:
        found, reason = transforms_of(config_of(LOAD, step, dict(type='LoadAnnotations'), dict(type='PackInputs')))
        assert (found, bool(reason)) == (((expected,), False) if expected else ((), True))


def test_every_shipped_config_can_be_exported() -> None:
    """Its pixels, channel order and test pipeline are known."""
    for name in list_configs():
        cfg = load_config(name)
        preprocess_of(cfg, pad=True)
        assert transforms_of(cfg)[1] == '', name
        assert channel_order_of(cfg) == ('rgb' if 'CIFAR' in dataset_of_test(cfg)['type'] else 'bgr'), name


PREPROCESSORS = [
    ('mmpretrain', dict(type='ClsDataPreprocessor', to_rgb=True, pad_size_divisor=16)),
    ('mmpretrain', dict(to_rgb=False)),
    ('mmdet', dict(type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=32, pad_value=3)),
    ('mmseg', dict(type='SegDataPreProcessor', rgb_to_bgr=True, test_cfg=dict(size_divisor=8))),
    ('mmseg', dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=-1, test_cfg=dict(size=(70, 90)))),
    ('mmseg', dict(type='SegDataPreProcessor', size=(64, 64))),
    ('mmseg', dict(type='mmres2net.AlignedSegDataPreProcessor', bgr_to_rgb=True, size=(65, 49), pad_val=2)),
]
PACK = {'mmpretrain': 'PackInputs', 'mmdet': 'PackDetInputs', 'mmseg': 'PackSegInputs'}


@pytest.mark.parametrize('size', [(40, 33), (75, 97)])
@pytest.mark.parametrize(('scope', 'preprocessor'), PREPROCESSORS)
def test_the_graph_preprocesses_as_the_model_does(scope, preprocessor, size, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    cfg = config_of(LOAD, dict(type=PACK[scope]), scope=scope, **preprocessor)
    with scope_of(cfg):
        model = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.model.data_preprocessor})
    expected = model(run_pipeline(cfg, tmp_path / 'image.png'), False)['inputs']
    got = preprocess_of(cfg, pad=True)(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('node', [dict(type='Mine'), dict(mean=None), dict(std=[]), dict(mean=[1], std=[2])])
def test_other_preprocessors_are_refused(node: dict) -> None:
    cfg = config_of(LOAD)
    cfg.model.data_preprocessor.update(node)
    with pytest.raises(UserError):
        preprocess_of(cfg, pad=True)


@pytest.mark.parametrize(
    ('size', 'padded'), [((375, 500), (513, 513)), ((480, 640), (513, 641)), ((513, 514), (513, 529))]
)
def test_test_images_are_padded_until_corners_are_aligned(size: tuple[int, int], padded: tuple[int, int]) -> None:
    cfg = load_config('deeplabv3plus_r2n50.py')
    graph = preprocess_of(cfg, pad=True)(torch.zeros(1, 3, *size, dtype=torch.uint8))
    assert tuple(graph.shape[2:]) == padded
    preprocessor = AlignedSegDataPreProcessor([1, 2, 3], [1, 1, 1], (513, 513))
    samples = [pytest.importorskip('mmseg.structures').SegDataSample()]
    data = preprocessor({'inputs': [torch.zeros(3, *size, dtype=torch.uint8)], 'data_samples': samples})
    assert tuple(data['inputs'].shape[2:]) == padded
    padding = data['data_samples'][0].img_padding_size
    assert tuple(padding) == (0, padded[1] - size[1], 0, padded[0] - size[0])


def test_training_crops_are_padded_with_their_masks() -> None:
    mask = PixelData(data=torch.ones(1, 30, 40, dtype=torch.uint8))
    sample = pytest.importorskip('mmseg.structures').SegDataSample(gt_sem_seg=mask)
    preprocessor = AlignedSegDataPreProcessor([0, 0, 0], [1, 1, 1], (49, 65), seg_pad_val=255)
    data = preprocessor({'inputs': [torch.ones(3, 30, 40)], 'data_samples': [sample]}, training=True)
    assert tuple(data['inputs'].shape) == (1, 3, 49, 65)
    assert int((data['data_samples'][0].gt_sem_seg.data == 255).sum()) == 49 * 65 - 30 * 40
    with pytest.raises(ValueError, match='512'):
        AlignedSegDataPreProcessor([0, 0, 0], [1, 1, 1], (512, 512))
