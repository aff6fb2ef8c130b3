"""Res2NeXt-50 4w x 8c x 4s on ImageNet: resnext50.py with another backbone and nothing else.

Family: paper (section 4.1).
Target: top-1 error 21.76, top-5 error 6.09, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2next50_4s.py --launcher pytorch
"""

_base_ = 'resnext50.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2next50_4s', out_indices=(3,)))
