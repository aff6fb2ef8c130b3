"""ResNeXt-29 8c64w-SE on CIFAR-100: resnext29_8c64w.py with another backbone.

Family: paper.
Target: top-1 error 16.77, published by the paper (table 4).
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 35.21M; the 35.1M of table 4 fit a classifier of 10 classes and a reduction of 8, which the paper
does not tell.
Status: not trained here; its step runs in the tests.
Run: tools/train.py configs/cifar100/se_resnext29_8c64w.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='se_resnext29_8c64w'))
