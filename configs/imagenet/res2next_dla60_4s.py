"""Res2NeXt-DLA-60 on ImageNet: dla60x.py with another backbone and nothing else.

Family: paper (section 4.1).
Target: top-1 error 21.55, top-5 error 5.86, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2next_dla60_4s.py --launcher pytorch
"""

_base_ = 'dla60x.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2NetDLA', arch='res2next_dla60_4s', out_indices=(3,)))
