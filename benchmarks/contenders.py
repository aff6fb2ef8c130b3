"""The one table of contenders. The first of each suite is the base of all ratios."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.case import Case, Contender, Job
from benchmarks.detectors import WholeModel
from benchmarks.networks import MMDET, Exported, Inference, Training

BACKBONES, WHOLE = ('inference', 'training'), ('step', 'image')
INFERENCE = ('inference',)
TIMM, MMDETS, STOCK, PLAIN = 'timm, eager', "mmdet's network: mmdet, eager", "mmdet's config and Res2Net", 'ours, eager'
R50_TIMM, R50_PLAIN = 'ResNet-50: timm, eager', 'ResNet-50: eager'


def backbone(**options: Any) -> Callable[[Case], Job]:
    """Return the builder of a backbone's job."""
    return lambda case: (Training if case.suite == 'training' else Inference)(case, **options)


def sped_up(kind: str) -> Callable[[Case], Job]:
    """Return the builder of our network of a kind, sped up."""
    return backbone(source='ours', kind=kind, mode='sped up')


exported, whole = partial(partial, Exported), partial(partial, WholeModel)
CONTENDERS = (
    Contender(TIMM, BACKBONES, backbone(source='timm')),
    Contender('timm, eager, memory not kept', BACKBONES, backbone(source='timm'), TIMM, keep_memory=False),
    Contender('timm, channels_last', BACKBONES, backbone(source='timm', mode='channels_last'), TIMM),
    Contender('timm, folded, channels_last', INFERENCE, backbone(source='timm', mode='folded'), TIMM),
    Contender('timm, compiled, channels_last', BACKBONES, backbone(source='timm', mode='compiled'), TIMM),
    Contender('timm, ONNX Runtime', INFERENCE, exported(source='timm', runtime='onnxruntime'), TIMM),
    Contender('timm, OpenVINO', INFERENCE, exported(source='timm', runtime='openvino'), TIMM),
    Contender(PLAIN, BACKBONES, backbone(source='ours'), TIMM, ours=True),
    Contender('ours, channels_last', BACKBONES, backbone(source='ours', mode='channels_last'), TIMM, ours=True),
    Contender('ours, fused copy, channels_last', INFERENCE, backbone(source='ours', mode='fused'), TIMM, ours=True),
    Contender('ours, sped up', BACKBONES, backbone(source='ours', mode='sped up'), TIMM, ours=True),
    Contender('ours, compiled', BACKBONES, backbone(source='ours', mode='compiled'), TIMM, ours=True),
    Contender('ours, ONNX Runtime', INFERENCE, exported(source='ours', runtime='onnxruntime'), TIMM, ours=True),
    Contender('ours, OpenVINO', INFERENCE, exported(source='ours', runtime='openvino'), TIMM, ours=True),
    Contender(MMDETS, BACKBONES, backbone(source='mmdet', kind='mmdet')),
    Contender("mmdet's network: ours, sped up", BACKBONES, sped_up('mmdet'), MMDETS, ours=True),
    Contender(R50_TIMM, BACKBONES, backbone(source='timm', kind='resnet50')),
    Contender('ResNet-50: ours, sped up', BACKBONES, sped_up('resnet50'), R50_TIMM, ours=True),
    Contender('res2net50_48w_2s: ours, sped up', INFERENCE, sped_up('res2net50_48w_2s'), ours=True),
    Contender('res2net50_14w_8s: ours, sped up', INFERENCE, sped_up('res2net50_14w_8s'), ours=True),
    Contender(STOCK, WHOLE, whole(stock=True)),
    Contender(f'{STOCK}, memory not kept', WHOLE, whole(stock=True), STOCK, keep_memory=False),
    Contender("mmdet's network by ours, sped up", WHOLE, whole(backbone=MMDET, fast=True), STOCK, ours=True),
    Contender(PLAIN, WHOLE, whole(), ours=True),
    Contender('ours, sped up', WHOLE, whole(fast=True), PLAIN, ours=True),
    Contender(R50_PLAIN, WHOLE, whole(resnet=True)),
    Contender('ResNet-50: sped up', WHOLE, whole(resnet=True, fast=True), R50_PLAIN, ours=True),
)


def contenders_of(suite: str) -> dict[str, Contender]:
    """Return the contenders of a suite by name."""
    return {row.name: row for row in CONTENDERS if suite in row.suites}
