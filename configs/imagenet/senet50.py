"""SE-ResNet-50 on ImageNet: the baseline of se_res2net50_26w_4s.py (table 1, SENet-50).

Family: paper (section 4.1).
Target: top-1 error 23.24, top-5 error 6.69, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/senet50.py --launcher pytorch
"""

_base_ = 'resnet50.py'

model = dict(backbone=dict(type='mmpretrain.SEResNet', se_ratio=16))
