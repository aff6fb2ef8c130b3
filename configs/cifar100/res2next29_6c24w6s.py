"""Res2NeXt-29 6c24w6s on CIFAR-100: resnext29_8c64w.py with another backbone.

Recipe: paper.
Run: tools/train.py configs/cifar100/res2next29_6c24w6s.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='res2next29_6c24w6s'))
