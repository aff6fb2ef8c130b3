"""ResNet-50 on ImageNet: the baseline of all res2net50_* here (tables 1 and 3).

Family: paper (section 4.1; without label smoothing, see resnet50_smooth.py).
Target: top-1 error 23.85, top-5 error 7.13, as the paper has it (tables 1, 3): the figures of torchvision's weights.
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnet50.py --launcher pytorch
"""

_base_ = [
    '../_base_/models/resnet50_classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/classification_runtime.py',
]
