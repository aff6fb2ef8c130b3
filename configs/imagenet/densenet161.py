"""DenseNet-161 on ImageNet: the peer of res2net101_26w_4s.py in table 2.

Family: paper (section 4.1).
Target: top-1 error 22.35, top-5 error 6.20, as the paper has it (table 2): the figures of torchvision's weights.
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
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
