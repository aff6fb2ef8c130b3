"""Res2NeXt-29 8c25w4s-SE on CIFAR-100: resnext29_8c64w.py with another backbone.

Family: paper.
Target: top-1 error 16.64, published by the paper (table 4).
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 34.08M; the 34.0M of table 4 fit a classifier of 10 classes and a reduction of 32, which the paper
does not tell.
Status: not trained here; its step runs in the tests.
Run: tools/train.py configs/cifar100/se_res2next29_8c25w4s.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='se_res2next29_8c25w4s'))
