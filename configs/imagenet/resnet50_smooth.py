"""ResNet-50 on ImageNet with label smoothing: the baseline of res2net50_26w_4s_smooth.py.

The authors' training script smooths the labels by 0.1; the paper does not mention it. Here both networks of the pair
get the same loss.
Recipe: script (the authors' training script).
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnet50_smooth.py --launcher pytorch
"""

_base_ = ['resnet50.py', '../_base_/models/label_smoothing.py']

model = dict(head=dict(loss=_base_.smoothed_loss))
