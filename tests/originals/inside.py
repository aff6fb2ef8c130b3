"""Build and run every backbone, and hosts with one of them, on whatever OpenMMLab is importable; print figures as JSON.

Called by ``check.py`` once for each environment; the hosts to use are named on the command line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

import mmres2net.models as ours

SIZE, CIFAR_SIZE = 64, 16


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return a hash of shapes and bits."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str(tuple(tensor.shape)).encode() + tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def run_backbone(arch: str) -> str:
    """Build a backbone by MMEngine's registry with seeded weights; run it forward and backward in float64."""
    torch.manual_seed(0)
    family = ours.ARCHS[arch].family
    kind = 'Res2NetDLA' if family == 'dla' else 'Res2Net'
    stages = {} if family == 'cifar' else {'out_indices': (1, 2, 3)}
    net = MODELS.build(dict(type=f'mmres2net.{kind}', arch=arch, **stages)).double().train()
    size = CIFAR_SIZE if family == 'cifar' else SIZE
    image = torch.rand(1, 3, size, size, dtype=torch.float64)
    features = net(image)
    sum(feature.square().mean() for feature in features).backward()
    gradients = [value.grad for value in net.parameters() if value.grad is not None]
    return digest([*features, *gradients])


BACKBONE = dict(type='mmres2net.Res2Net', arch='res2net50_26w_4s')
NORM = dict(type='BN', requires_grad=True)
MODELS_BY_HOST: dict[str, dict[str, Any]] = {
    'mmpretrain': dict(
        type='ImageClassifier',
        backbone=dict(**BACKBONE, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=2048, loss=dict(type='CrossEntropyLoss')),
    ),
    'mmseg': dict(
        type='EncoderDecoder',
        backbone=dict(**BACKBONE, out_indices=(0, 1, 2, 3)),
        decode_head=dict(
            type='FCNHead',
            in_channels=2048,
            in_index=3,
            channels=16,
            num_convs=1,
            dropout_ratio=0.0,
            num_classes=5,
            norm_cfg=NORM,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    ),
    'mmdet': dict(
        type='RetinaNet',
        backbone=dict(**BACKBONE, out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[512, 1024, 2048], out_channels=32, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=5,
            in_channels=32,
            feat_channels=32,
            stacked_convs=1,
            anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)),
        test_cfg=dict(nms_pre=100, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10),
    ),
}


def run_host(name: str) -> str:
    """Build a host's model around our backbone under its own scope, and run it as a tensor function."""
    importlib.import_module(f'{name}.models')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(name):
        model = importlib.import_module(f'{name}.registry').MODELS.build(MODELS_BY_HOST[name])
        model.init_weights()
        assert type(model.backbone) is ours.Res2Net, type(model.backbone)
        model.eval()
        with torch.no_grad():
            out = model(torch.rand(1, 3, SIZE, SIZE), mode='tensor')
    return digest(_flat(out))


def _flat(out: Any) -> Iterable[torch.Tensor]:
    return [out] if isinstance(out, torch.Tensor) else [tensor for part in out for tensor in _flat(part)]


def main(hosts: list[str]) -> None:
    """Print versions, owners and figures."""
    MMLogger.get_instance('originals', log_level='ERROR')  # init_weights tells of every parameter
    figures = {arch: run_backbone(arch) for arch in ours.ARCHS}
    figures |= {host: run_host(host) for host in hosts}
    modules = ['torch', 'mmengine', 'mmcv', *hosts]
    owners = importlib.metadata.packages_distributions()
    record = {
        'versions': {name: importlib.import_module(name).__version__ for name in modules},
        'owners': [owner for name in modules for owner in owners.get(name, ())],
        'figures': figures,
    }
    print(json.dumps(record))


if __name__ == '__main__':
    main(sys.argv[1:])
