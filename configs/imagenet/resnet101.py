"""ResNet-101 on ImageNet: the baseline of res2net101_26w_4s.py (table 2).

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnet101.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(depth=101))
