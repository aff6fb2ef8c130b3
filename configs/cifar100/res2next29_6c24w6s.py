"""Res2NeXt-29 6c24w6s on CIFAR-100: resnext29_8c64w.py with another backbone.

Family: paper.
Target: top-1 error 16.79, published by the paper (table 4).
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 36.80M; the 36.7M of table 4 fit a classifier of 10 classes.
Status: not trained here; its step runs in the tests.
Run: tools/train.py configs/cifar100/res2next29_6c24w6s.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='res2next29_6c24w6s'))
