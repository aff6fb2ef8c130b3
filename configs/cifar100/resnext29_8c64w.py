"""ResNeXt-29 8c64w on CIFAR-100: the baseline of the paper's table 4.

Family: paper. Normalised by ImageNet's mean and deviation, as the paper's author says his runs were; ResNeXt's code
takes CIFAR's own (129.3, 124.1, 112.4 and 68.2, 65.4, 70.4).
Target: top-1 error 17.90, published by the paper (table 4); 17.77 by the ResNeXt paper.
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 34.52M; the 34.4M of table 4 fit a classifier of 10 classes.
Status: not trained here; its step runs in the tests.
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
