"""SE-ResNet-50 on ImageNet: the baseline of se_res2net50_26w_4s.py (table 1, SENet-50).

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/senet50.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(type='mmpretrain.SEResNet', se_ratio=16))
