"""A small Res2NeXt of scale 2 on CIFAR-10: resnext20_2c22w.py with the multiply-adds spent on 2 splits of width 13.

Recipe: demo (random weights, 12 epochs, about 20 minutes of one CPU core).
Run: tools/train.py configs/cifar10/res2next20_2c13w2s.py
"""

_base_ = 'resnext20_2c22w.py'

model = dict(backbone=dict(base_width=13, scales=2))
