"""DLA-X-60 on ImageNet: the baseline of res2next_dla60_4s.py (table 1).

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/dla60x.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(
    backbone=dict(_delete_=True, type='mmres2net.Res2NetDLA', arch='dla60x', out_indices=(3,)),
    head=dict(in_channels=1024),
)
