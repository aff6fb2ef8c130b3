"""180,000 steps of 16 images by SGD: maskrcnn-benchmark's 2x; biases have twice the learning rate and no decay."""

max_iters = 180_000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=20_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[120_000, 160_000], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
