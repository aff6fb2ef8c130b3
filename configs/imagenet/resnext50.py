"""ResNeXt-50 32x4d on ImageNet: the baseline of res2next50_4s.py (table 1).

Family: paper (section 4.1).
Target: top-1 error 22.61, top-5 error 6.50, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnext50.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(type='mmpretrain.ResNeXt', groups=32, width_per_group=4))
