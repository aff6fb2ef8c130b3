"""Wide ResNet-28-10 on CIFAR-100: the first row of table 4.

The schedule of "Wide Residual Networks", without dropout; that paper pads with reflections.
Recipe: paper.
Run: tools/train.py configs/cifar100/wrn28_10.py
"""

_base_ = 'resnext29_8c64w.py'

model = dict(
    backbone=dict(_delete_=True, type='mmres2net.WideResNet', depth=28, widen_factor=10), head=dict(in_channels=640)
)
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=200)
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=200, milestones=[60, 120, 160], gamma=0.2)]
auto_scale_lr = dict(base_batch_size=128)
