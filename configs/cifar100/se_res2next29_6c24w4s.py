"""Res2NeXt-29 6c24w4s-SE on CIFAR-100: resnext29_8c64w.py with another backbone.

The paper does not state the reduction of the SE blocks; 32 is that of the other two Res2NeXt rows.
Recipe: paper.
Run: tools/train.py configs/cifar100/se_res2next29_6c24w4s.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='se_res2next29_6c24w4s'))
