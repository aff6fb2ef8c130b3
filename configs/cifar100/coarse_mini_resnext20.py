"""ResNeXt-20 of half the resolution on 900 images of CIFAR-100 and its 20 coarse classes: the baseline of
cifar100/coarse_mini_res2next20.py.

It shows that the whole chain learns, in minutes on two CPU cores; its figures compare no networks.

Family: demo, on the first 900 images of the file `test`; it is tested on the first 480 of `train`.
Target: none; chance is a top-1 accuracy of 5, and no class alone makes more than 7.1 of the test images.
Schedule: 15 epochs x 900 images / 50 a step = 18 steps an epoch.
Status: not trained here; its step runs in the tests.
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
