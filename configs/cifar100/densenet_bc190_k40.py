"""DenseNet-BC of 190 layers and growth rate 40 on CIFAR-100: a row of table 4.

Learning rate and weight decay of "Densely Connected Convolutional Networks".
Recipe: paper.
Run: tools/train.py configs/cifar100/densenet_bc190_k40.py
"""

_base_ = 'resnext29_8c64w.py'

# with_cp: what the layers join would take some 20 GiB at 64 images; recomputing it is exact.
model = dict(
    backbone=dict(_delete_=True, type='mmres2net.DenseNetBC', depth=190, growth_rate=40, with_cp=True),
    head=dict(in_channels=2190),
)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.0001))
