"""Res2Net-50 26w x 4s on ImageNet at 299 x 299 pixels (table 1): res2net50_26w_4s.py with larger images.

Its peer in the table is InceptionV3 (22.55, 6.44: torchvision's figures for weights that it took over), the network it
started from ResNet-50. The paper does not say to what size test images are scaled before the crop.

Family: paper (sections 4.1, 4.2.1).
Target: top-1 error 21.41, top-5 error 5.88, published by the paper (table 1).
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net50_26w_4s_299.py --launcher pytorch
"""

_base_ = [
    '../_base_/models/resnet50_classifier.py',
    '../_base_/datasets/imagenet_299.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/classification_runtime.py',
]

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net50_26w_4s', out_indices=(3,)))
