"""A small ResNeXt on CIFAR-10: depth 20, cardinality 2, half the channels; the baseline of the scales 2, 3, 4 and 6.

Each of these networks has 19.5 million multiply-adds and 0.47 million parameters, within 2 %.
Recipe: demo (random weights, 12 epochs, about 20 minutes of one CPU core).
Run: tools/train.py configs/cifar10/resnext20_2c22w.py
"""

_base_ = [
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10_12e.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
    backbone=dict(
        type='mmres2net.Res2Net',
        family='cifar',
        depths=(2, 2, 2),
        strides=(2, 2, 2),
        base_channels=32,
        base_width=22,
        scales=1,
        cardinality=2,
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512, topk=(1,)),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best=None))
