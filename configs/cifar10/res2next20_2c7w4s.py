"""A small Res2NeXt of scale 4 on CIFAR-10: resnext20_2c22w.py with the multiply-adds spent on 4 splits of width 7.

Recipe: demo (random weights, 12 epochs, about 20 minutes of one CPU core).
Run: tools/train.py configs/cifar10/res2next20_2c7w4s.py
"""

_base_ = 'resnext20_2c22w.py'

model = dict(backbone=dict(base_width=7, scales=4))
