"""ResNet-50 on ImageNet with label smoothing: the baseline of res2net50_26w_4s_smooth.py.

The authors' training script smooths the labels by 0.1, though the release's notes speak of no tricks; their guess was
that it brings about 0.2 points. The ResNet-50 of the paper's tables is torchvision's, trained without it. With this
config both networks get the same loss.

Family: script (the authors' published training script).
Target: none is published for ResNet-50 with this script.
Schedule: 100 epochs x 1,281,167 training images / 256 a step = 5,005 steps an epoch.
Status: not trained on ImageNet here; a step of training and one of testing run on generated images.
Run: torchrun --nproc-per-node 4 tools/train.py configs/imagenet/resnet50_smooth.py --launcher pytorch
"""

_base_ = ['resnet50.py', '../_base_/models/label_smoothing.py']

model = dict(head=dict(loss=_base_.smoothed_loss))
