"""ResNeXt-29 6c24w on CIFAR-10: the network of figure 4 with which it starts, in the settings of CIFAR-100, for a GPU.

Recipe: paper.
Run: tools/train.py configs/cifar10/resnext29_6c24w.py
"""

_base_ = [
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar_300e.py',
    '../_base_/classification_runtime.py',
]

train_dataloader = dict(batch_size=64, num_workers=4, persistent_workers=True)
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
    backbone=dict(
        type='mmres2net.Res2Net',
        family='cifar',
        depths=(3, 3, 3),
        base_width=24,
        scales=1,
        cardinality=6,
        out_indices=(2,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1024, topk=(1,)),
)
default_hooks = dict(checkpoint=dict(interval=10, save_best='accuracy/top1'))
