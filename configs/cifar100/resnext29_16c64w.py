"""ResNeXt-29 16c64w on CIFAR-100: resnext29_8c64w.py with another backbone.

Recipe: paper.
Run: tools/train.py configs/cifar100/resnext29_16c64w.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(backbone=dict(arch='resnext29_16c64w'))
