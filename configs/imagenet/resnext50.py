"""ResNeXt-50 32x4d on ImageNet: the baseline of res2next50_4s.py (table 1).

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnext50.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(type='mmpretrain.ResNeXt', groups=32, width_per_group=4))
