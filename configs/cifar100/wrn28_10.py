"""Wide ResNet-28-10 on CIFAR-100: the first row of the paper's table 4, with that network's own recipe.

Family: paper (the schedule of "Wide Residual Networks", without dropout; that paper pads with reflections).
Target: top-1 error 20.50, which the paper cites (table 4).
Schedule: 200 epochs x 50,000 images / 128 a step = 391 steps an epoch.
Parameters: 36.54M; table 4 prints 36.5M.
Status: not trained here; its step runs in the tests.
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
