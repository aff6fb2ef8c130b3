"""The one table of contenders. The first of each suite is the base of all ratios."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.case import Case, Contender
from benchmarks.detectors import WholeModel
from benchmarks.networks import MMDET, Exported, Inference, Training, recorded

BACKBONES, WHOLE = ('inference', 'training'), ('step', 'image')
INFERENCE, TRAINING, CPU, CUDA = ('inference',), ('training',), ('cpu',), ('cuda',)
TIMM, MMDETS, STOCK, PLAIN = 'timm, eager', "mmdet's network: mmdet, eager", "mmdet's config and Res2Net", 'ours, eager'
R50_TIMM, R50_PLAIN = 'ResNet-50: timm, eager', 'ResNet-50: eager'


def backbone(*, graphs: bool = False, **options: Any) -> Callable[[Case], Any]:
    """Return the builder of a backbone's job."""

    def build(case: Case) -> Any:
        job = (Training if case.suite == 'training' else Inference)(case, **options)
        return recorded(job) if graphs else job

    return build


def sped_up(kind: str) -> Callable[[Case], Any]:
    """Return the builder of our network of a kind, sped up."""
    return backbone(source='ours', kind=kind, mode='sped up')


exported, whole = partial(partial, Exported), partial(partial, WholeModel)
timm, ours = partial(backbone, source='timm'), partial(backbone, source='ours')
resnet_timm, resnet = (partial(part, kind='resnet50') for part in (timm, ours))


CONTENDERS = (
    Contender(TIMM, BACKBONES, timm()),
    Contender('timm, channels_last', BACKBONES, timm(mode='channels_last'), TIMM),
    Contender('timm, folded, channels_last', INFERENCE, timm(mode='folded'), TIMM),
    Contender('timm, compiled, channels_last', BACKBONES, timm(mode='channels_last', compiled=True), TIMM),
    Contender('timm, folded, compiled', INFERENCE, timm(mode='folded', compiled=True), TIMM, CUDA),
    Contender('timm, folded, CUDA graph', INFERENCE, timm(mode='folded', graphs=True), TIMM, CUDA),
    Contender('timm, CUDA graph', TRAINING, timm(mode='channels_last', graphs=True), TIMM, CUDA),
    Contender('timm, ONNX Runtime', INFERENCE, exported(source='timm', runtime='onnxruntime'), TIMM, CPU),
    Contender('timm, OpenVINO', INFERENCE, exported(source='timm', runtime='openvino'), TIMM, CPU),
    Contender(PLAIN, BACKBONES, ours(), TIMM),
    Contender('ours, channels_last', BACKBONES, ours(mode='channels_last'), TIMM),
    Contender('ours, fused copy, channels_last', INFERENCE, ours(mode='fused'), TIMM),
    Contender('ours, sped up', BACKBONES, ours(mode='sped up'), TIMM, CPU),
    Contender('ours, compiled', BACKBONES, ours(mode='channels_last', compiled=True), TIMM),
    Contender('ours, fused copy, compiled', INFERENCE, ours(mode='fused', compiled=True), TIMM, CUDA),
    Contender('ours, fused copy, CUDA graph', INFERENCE, ours(mode='fused', graphs=True), TIMM, CUDA),
    Contender('ours, compiled, CUDA graph', INFERENCE, ours(mode='fused', compiled=True, graphs=True), TIMM, CUDA),
    Contender('ours, CUDA graph', TRAINING, ours(mode='channels_last', graphs=True), TIMM, CUDA),
    Contender('ours, ONNX Runtime', INFERENCE, exported(source='ours', runtime='onnxruntime'), TIMM, CPU),
    Contender('ours, OpenVINO', INFERENCE, exported(source='ours', runtime='openvino'), TIMM, CPU),
    Contender(MMDETS, BACKBONES, backbone(source='mmdet', kind='mmdet')),
    Contender("mmdet's network: ours, sped up", BACKBONES, sped_up('mmdet'), MMDETS, CPU),
    Contender(R50_TIMM, BACKBONES, resnet_timm()),
    Contender('ResNet-50: ours, sped up', BACKBONES, sped_up('resnet50'), R50_TIMM, CPU),
    Contender('ResNet-50: ours, compiled', BACKBONES, resnet(mode='channels_last', compiled=True), R50_TIMM, CUDA),
    Contender('ResNet-50: ours, fused, compiled', INFERENCE, resnet(mode='fused', compiled=True), R50_TIMM, CUDA),
    Contender('ResNet-50: ours, fused, CUDA graph', INFERENCE, resnet(mode='fused', graphs=True), R50_TIMM, CUDA),
    Contender('res2net50_48w_2s: ours, sped up', INFERENCE, sped_up('res2net50_48w_2s'), None, CPU),
    Contender('res2net50_14w_8s: ours, sped up', INFERENCE, sped_up('res2net50_14w_8s'), None, CPU),
    Contender(STOCK, WHOLE, whole(stock=True)),
    Contender("mmdet's network by ours, sped up", WHOLE, whole(backbone=MMDET, fast=True), STOCK),
    Contender(PLAIN, WHOLE, whole()),
    Contender('ours, sped up', WHOLE, whole(fast=True), PLAIN),
    Contender(R50_PLAIN, WHOLE, whole(resnet=True)),
    Contender('ResNet-50: sped up', WHOLE, whole(resnet=True, fast=True), R50_PLAIN),
)


def contenders_of(suite: str, device: str = 'cpu') -> dict[str, Contender]:
    """Return the contenders of a suite on a device by name."""
    return {row.name: row for row in CONTENDERS if suite in row.suites and device in row.devices}
