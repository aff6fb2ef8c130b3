"""Res2Net-DLA-60 on ImageNet: dla60.py with another backbone and nothing else.

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net_dla60_4s.py --launcher pytorch
"""

_base_ = 'dla60.py'

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2NetDLA', arch='res2net_dla60_4s', out_indices=(3,)))
