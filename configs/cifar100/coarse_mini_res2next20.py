"""Res2NeXt-20 on 900 images and the 20 coarse classes of CIFAR-100: another backbone and nothing else.

Recipe: demo (random weights, minutes on two CPU cores).
Run: tools/train.py configs/cifar100/coarse_mini_res2next20.py
"""

_base_ = 'coarse_mini_resnext20.py'

model = dict(backbone=dict(base_width=6, scales=4))
