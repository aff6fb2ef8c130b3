"""DenseNet-BC of 190 layers and growth rate 40 on CIFAR-100: a row of the paper's table 4, with its own recipe.

Family: paper (rate and decay of "Densely Connected Convolutional Networks").
Target: top-1 error 17.18, which the paper cites (table 4).
Schedule: 300 epochs x 50,000 images / 64 a step = 782 steps an epoch.
Parameters: 25.82M; the 25.6M of table 4 fit a classifier of 10 classes.
Status: not trained here; its step runs in the tests.
Run: tools/train.py configs/cifar100/densenet_bc190_k40.py
"""

_base_ = 'resnext29_8c64w.py'

# with_cp: what the layers join would take some 20 GiB at 64 images; recomputing it is exact.
model = dict(
    backbone=dict(_delete_=True, type='mmres2net.DenseNetBC', depth=190, growth_rate=40, with_cp=True),
    head=dict(in_channels=2190),
)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0001))
