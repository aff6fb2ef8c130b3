"""Res2NeXt-50 4w x 8c x 4s on ImageNet: resnext50.py with another backbone and nothing else.

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2next50_4s.py --launcher pytorch
"""

_base_ = 'resnext50.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2next50_4s', out_indices=(3,)))
