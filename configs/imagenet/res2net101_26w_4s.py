"""Res2Net-101 26w x 4s on ImageNet: resnet101.py with another backbone and nothing else.

Family: paper (section 4.1).
Target: top-1 error 20.81, top-5 error 5.57, published by the paper (table 2).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net101_26w_4s.py --launcher pytorch
"""

_base_ = 'resnet101.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net101_26w_4s', out_indices=(3,)))
