"""Res2NeXt-29 8c25w4s-SE on CIFAR-100: resnext29_8c64w.py with another backbone.

The paper does not state the reduction of the SE blocks; 32 fits the size in table 4.
Recipe: paper.
Run: tools/train.py configs/cifar100/se_res2next29_8c25w4s.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='se_res2next29_8c25w4s'))
