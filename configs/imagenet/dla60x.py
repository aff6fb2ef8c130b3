"""DLA-X-60 on ImageNet: the baseline of res2next_dla60_4s.py (table 1).

Family: paper (section 4.1).
Target: top-1 error 22.19, top-5 error 6.13, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/dla60x.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(
    backbone=dict(_delete_=True, type='mmres2net.Res2NetDLA', arch='dla60x', out_indices=(3,)),
    head=dict(in_channels=1024),
)
