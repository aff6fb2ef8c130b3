"""24 epochs of SGD with 16 images per step: the usual 2x schedule of detectors."""

_base_ = './sgd_1x.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[16, 22], gamma=0.1),
]
