"""Res2Net-50 26w x 4s on ImageNet: resnet50.py with another backbone and nothing else.

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net50_26w_4s.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net50_26w_4s', out_indices=(3,)))
