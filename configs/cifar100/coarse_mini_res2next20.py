"""Res2NeXt-20 of half the resolution on 900 images of CIFAR-100 and its 20 coarse classes: another backbone and
nothing else.

It shows that the whole chain learns, in minutes on two CPU cores; its figures compare no networks.

Family: demo, on the first 900 images of the file `test`; it is tested on the first 480 of `train`.
Target: none; chance is a top-1 accuracy of 5, and no class alone makes more than 7.1 of the test images.
Schedule: 15 epochs x 900 images / 50 a step = 18 steps an epoch.
Status: trained here, 270 steps: top-1 accuracy 25.0, top-5 61.3 on the 480 images.
Run: tools/train.py configs/cifar100/coarse_mini_res2next20.py
"""

_base_ = 'coarse_mini_resnext20.py'

model = dict(backbone=dict(base_width=6, scales=4))
