"""ResNeXt's schedule for CIFAR: 300 epochs of SGD, a tenth of the learning rate after 150 and again after 225.

The paper changes nothing in ResNeXt's code; its author names a learning rate of 0.05 and a weight decay of 0.0005 at 64
images per step. That code has Nesterov momentum and scales the learning rate: 0.1 for 128 images, 0.025 for 32.
"""

max_epochs = 300
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.0005)
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[150, 225], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=64)
