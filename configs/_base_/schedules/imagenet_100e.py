"""100 epochs of SGD with 256 images per step, a tenth of the learning rate every 30 (section 4.1)."""

max_epochs = 100
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[30, 60, 90], gamma=0.1),
]
# 4 processes of 64 images: --auto-scale-lr scales the learning rate to other numbers.
auto_scale_lr = dict(enable=False, base_batch_size=256)
