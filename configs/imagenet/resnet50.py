"""ResNet-50 on ImageNet: the baseline of all res2net50_* here (tables 1 and 3).

Recipe: paper.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnet50.py --launcher pytorch
"""

_base_ = [
    '../_base_/models/resnet50_classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/classification_runtime.py',
]
