"""ResNeXt-29 8c64w on CIFAR-100: the baseline of table 4.

Normalized by ImageNet's mean and std, as the paper's author says; ResNeXt's code takes CIFAR's own.
Recipe: paper.
Run: tools/train.py configs/cifar100/resnext29_8c64w.py
"""

_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_300e.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=False
    ),
    backbone=dict(type='mmres2net.Res2Net', arch='resnext29_8c64w', out_indices=(2,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
# 300 epochs of one minute: a checkpoint of each would be more than is ever looked at.
default_hooks = dict(checkpoint=dict(interval=10, save_best='accuracy/top1'))
