"""A small Res2NeXt of scale 3 on CIFAR-10: resnext20_2c22w.py with the multiply-adds spent on 3 splits of width 9.

Recipe: demo (random weights, 12 epochs, about 20 minutes of one CPU core).
Run: tools/train.py configs/cifar10/res2next20_2c9w3s.py
"""

_base_ = 'resnext20_2c22w.py'

model = dict(backbone=dict(base_width=9, scales=3))
