"""DenseNet-161 on ImageNet: the peer of res2net101_26w_4s.py in table 2.

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/densenet161.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.DenseNet',
        arch='161',
        init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
    ),
    head=dict(in_channels=2208),
)
