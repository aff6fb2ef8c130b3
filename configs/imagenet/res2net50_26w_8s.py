"""Res2Net-50 26w x 8s on ImageNet: resnet50.py with another backbone and nothing else.

Family: paper (section 4.1).
Target: top-1 error 20.80, top-5 error 5.63, published by the paper (table 3; its text calls the row 22w x 8s).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net50_26w_8s.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net50_26w_8s', out_indices=(3,)))
