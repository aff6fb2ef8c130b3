"""Networks small enough for a map in a moment, and images for them."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from tests.support import tiny

CLASSES = ('tench, Tinca tinca', 'crane', 'drake')
BACKBONE = dict(type='mmres2net.Res2Net', depths=(1, 1, 1, 1), base_width=14, scales=4, out_indices=(3,))
STEPS = [
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=72, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=64), dict(type='PackInputs'),
]  # fmt: skip


def classifier(backbone: dict | None = None, classes: tuple[str, ...] = CLASSES, channels: int = 2048) -> dict:
    model = dict(
        type='ImageClassifier', data_preprocessor=dict(mean=tiny.PIXELS['mean'], std=tiny.PIXELS['std'], to_rgb=True),
        backbone=backbone or BACKBONE, neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=len(classes), in_channels=channels, topk=(1,)),
    )  # fmt: skip
    data = dict(dataset=dict(type='None', metainfo=dict(classes=classes), pipeline=STEPS))
    return dict(tiny.COMMON, default_scope='mmpretrain', model=model, test_dataloader=data)


def write_image(path: Path, height: int, width: int, mode: str = 'RGB') -> Path:
    """Write an image that is bright around its point at a third from above and two thirds from the left."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows + 0.5) / height - 1 / 3, (columns + 0.5) / width - 2 / 3)
    noise = np.random.default_rng(height * width).integers(0, 40, (height, width, 3))
    pixels = (200 * np.exp(-((distance / 0.2) ** 2))[..., None] + noise).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if mode == 'RGBA':
        image.putalpha(128)
    image.save(path)
    return path


def state_of(model: torch.nn.Module) -> list:
    found: list = [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()]
    found += [len(module._backward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    found += [(name, value.requires_grad) for name, value in model.named_parameters()]
    found += [None if value.grad is None else value.grad.tolist() for value in model.parameters()]
    return [*found, *(value.tolist() for value in model.state_dict().values())]


def config_of(steps: list, scope: str) -> Config:
    return Config(dict(default_scope=scope, test_dataloader=dict(dataset=dict(pipeline=steps))))


def saliency() -> dict:
    """A DSS, whose predictions have one channel and whose backbone is wrapped."""
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', **tiny.PIXELS, size_divisor=16, test_cfg=dict(size_divisor=16)
        ),
        backbone=dict(
            type='mmres2net.WithStem', backbone=dict(tiny.BACKBONE, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
        ),
        decode_head=dict(type='mmres2net.DSSHead', channels=(4, 4, 4, 4, 4)),
        train_cfg=None,
        test_cfg=dict(mode='whole'),
    )
    steps = [dict(type='LoadImageFromFile'), dict(type='mmres2net.LoadSaliencyMask'), dict(type='PackSegInputs')]
    one = dict(type='None', metainfo=dict(classes=('background', 'salient')), pipeline=steps)
    data = dict(dataset=dict(type='ConcatDataset', datasets=[one]))
    return dict(tiny.COMMON, default_scope='mmseg', model=model, test_dataloader=data)
