"""Res2Net-50 26w x 4s on ImageNet at 299 x 299 pixels (table 1): res2net50_26w_4s.py with larger images.

The paper does not say to what size test images are scaled before the crop.
Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/res2net50_26w_4s_299.py --launcher pytorch
"""

_base_ = [
    '../_base_/models/resnet50_classifier.py',
    '../_base_/datasets/imagenet_299.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/classification_runtime.py',
]

model = dict(backbone=dict(_delete_=True, type='mmres2net.Res2Net', arch='res2net50_26w_4s', out_indices=(3,)))
