"""Res2NeXt-29 6c24w4s on CIFAR-10: resnext29_6c24w.py with 4 splits, at 3.6 times its multiply-adds as in figure 4.

Recipe: paper.
Run: tools/train.py configs/cifar10/res2next29_6c24w4s.py
"""

_base_ = 'resnext29_6c24w.py'

model = dict(backbone=dict(scales=4))
