"""ResNeXt-20 on 900 images and the 20 coarse classes of CIFAR-100: the baseline of coarse_mini_res2next20.py.

Trained on the first 900 images of `test.bin`, tested on the first 480 of `train.bin`.
Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/cifar100/coarse_mini_resnext20.py
"""

_base_ = [
    '../_base_/datasets/cifar100_coarse_mini.py',
    '../_base_/schedules/cifar_mini.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=False),
    backbone=dict(
        type='mmres2net.Res2Net',
        family='cifar',
        depths=(2, 2, 2),
        strides=(2, 2, 2),
        base_width=24,
        scales=1,
        cardinality=2,
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=20, in_channels=1024, topk=(1, 5)),
)
default_hooks = dict(logger=dict(interval=9), checkpoint=dict(interval=5, save_best=None))
